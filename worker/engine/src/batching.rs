//! Continuous batching: which prompts join the running ones, and when.
//!
//! A prompt joins with room for its tokens and for all its candidates at their longest, and a cohort gives room
//! back as candidates and prompts end. Room is counted in tokens of keys and values, against
//! `engine.tokens_per_batch`.

use std::collections::VecDeque;

/// The part of the budget that must be free before others join: prefilling prompts one by one would cost a
/// pass of the model each.
const SHARE: usize = 4;

/// Prompts that wait for their prefill, the longest first: neighbours then differ little in length, and little
/// is spent on padding.
#[derive(Debug)]
pub(crate) struct Waiting {
    queue: VecDeque<usize>,
    /// Tokens of each prompt.
    lengths: Vec<usize>,
    /// Tokens of a prompt's candidates, all at their longest.
    answers: usize,
    budget: usize,
}

impl Waiting {
    /// All prompts wait; `lengths` are their tokens.
    pub fn new(lengths: Vec<usize>, answers: usize, budget: usize) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|prompt| std::cmp::Reverse(lengths[*prompt]));
        Self { queue: order.into(), lengths, answers, budget }
    }

    /// The prompts to prefill together now, while the running ones hold room for `held` tokens. With nothing
    /// running there is at least one, however long it is, until none waits.
    pub fn admit(&mut self, held: usize) -> Vec<usize> {
        let Some(first) = self.queue.front() else { return Vec::new() };
        let each = self.lengths[*first] + self.answers;
        let free = self.budget.saturating_sub(held);
        let mut count = (free / each).min(self.queue.len());
        if held == 0 {
            count = count.max(1);
        } else if count < self.queue.len() && count * each < self.budget / SHARE {
            return Vec::new();
        }
        self.queue.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Waiting;

    proptest! {
        /// A prompt that is never admitted would hang its unit, one that is admitted twice would be drawn
        /// twice, and one above the budget would exhaust the memory that the user set.
        #[test]
        fn every_prompt_joins_once_and_within_the_budget(
            lengths in prop::collection::vec(1usize..60, 0..40),
            answers in 1usize..100,
            budget in 1usize..400,
            ends in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let mut waiting = Waiting::new(lengths.clone(), answers, budget);
            let mut running: Vec<usize> = Vec::new();
            let mut joined = Vec::new();
            let mut ends = ends.into_iter();
            loop {
                let held = running.iter().sum();
                let cohort = waiting.admit(held);
                if let Some(longest) = cohort.iter().map(|prompt| lengths[*prompt]).max() {
                    let size = cohort.len() * (longest + answers);
                    prop_assert!(held + size <= budget || (held == 0 && cohort.len() == 1));
                    running.push(size);
                    joined.extend(cohort);
                } else if running.is_empty() {
                    break;
                } else if ends.next().unwrap_or(true) {
                    running.remove(0);
                }
            }
            joined.sort_unstable();
            prop_assert_eq!(joined, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
