//! One row of a training batch: a prefix that is processed once, and the branches that continue it.
//!
//! A scored group is the row `[prompt | y_1 | … | y_K]`; supervised examples about one image are
//! `[image and what precedes it | rest of question 1, answer 1 | rest of question 2, answer 2 | …]`.
//! Each branch sees the prefix and itself (a block mask), and its position ids are those it would have
//! alone, so each answer's log-probabilities, and the gradients, equal those of separate rows to rounding.
//! An answer's last token is left out of the row: nothing is predicted from it.

use medevo_model::PromptTokens;
use tch::{Device, Kind, Tensor};

/// Segment number of the prefix; branches count from 1.
const PREFIX: i64 = 0;
/// Segment number of padding: no key of it is ever seen by a token that counts.
const PADDING: i64 = -1;

/// An answer's place in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position in the row whose hidden state predicts each token.
    pub sources: Vec<i64>,
    /// The tokens to predict.
    pub targets: Vec<i64>,
}

/// One row before padding.
#[derive(Clone, Debug, Default)]
pub struct Row {
    ids: Vec<i64>,
    positions: [Vec<i64>; 3],
    segments: Vec<i64>,
    branches: i64,
    /// The answers, in the order in which they were added.
    pub answers: Vec<Span>,
}

impl Row {
    /// A row that starts with the first `prefix` tokens of `prompt`.
    #[must_use]
    pub fn new(prompt: &PromptTokens, prefix: usize) -> Self {
        let mut row = Self::default();
        row.extend_prompt(prompt, 0..prefix, PREFIX);
        row
    }

    fn extend_prompt(&mut self, prompt: &PromptTokens, part: std::ops::Range<usize>, segment: i64) {
        self.segments.resize(self.segments.len() + part.len(), segment);
        self.ids.extend(prompt.ids[part.clone()].iter().map(|id| i64::from(*id)));
        for axis in 0..3 {
            self.positions[axis].extend_from_slice(&prompt.positions[axis][part.clone()]);
        }
    }

    /// Adds the rest of `prompt` after `prefix` tokens, and an answer to it. `answer` is not empty.
    pub fn branch(&mut self, prompt: &PromptTokens, prefix: usize, answer: &[u32]) {
        self.branches += 1;
        let rest = prefix..prompt.ids.len();
        let mut source = if rest.is_empty() { prefix } else { self.len() + rest.len() } as i64 - 1;
        self.extend_prompt(prompt, rest, self.branches);
        let mut span = Span { sources: Vec::with_capacity(answer.len()), targets: Vec::new() };
        for (place, id) in answer.iter().enumerate() {
            span.sources.push(source);
            span.targets.push(i64::from(*id));
            if place + 1 < answer.len() {
                source = self.len() as i64;
                self.ids.push(i64::from(*id));
                self.segments.push(self.branches);
                for axis in &mut self.positions {
                    axis.push(prompt.next_position + place as i64);
                }
            }
        }
        self.answers.push(span);
    }

    /// Tokens in the row.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the row has no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Rows padded on the right to one length L.
#[derive(Debug)]
pub struct Batch {
    /// Token ids `[B, L]`.
    pub ids: Tensor,
    /// mRoPE position ids `[3, B, L]`.
    pub positions: Tensor,
    /// What each token may attend to, `[B, 1, L, L]` bool; true is seen.
    pub visible: Tensor,
    /// Places in `[B · L]` whose hidden states predict something, each once, ascending.
    pub predicting: Tensor,
    /// For each answer token: its row in `predicting`.
    pub source: Vec<i64>,
    /// For each answer token: its id.
    pub target: Vec<i64>,
}

impl Batch {
    /// Pads and stacks `rows`. Answer tokens are numbered row by row, answer by answer.
    #[must_use]
    pub fn new(rows: &[Row], device: Device) -> Self {
        let length = longest(rows);
        let (ids, positions) = stack(rows, device);
        let segments = padded(rows, &|row| &row.segments, PADDING);
        let mut places = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let base = (number * length) as i64;
            for span in &row.answers {
                places.extend(span.sources.iter().map(|source| base + source));
            }
        }
        let mut predicting = places.clone();
        predicting.sort_unstable();
        predicting.dedup();
        let source: Vec<i64> =
            places.iter().map(|place| predicting.partition_point(|p| p < place) as i64).collect();
        let target: Vec<i64> = rows
            .iter()
            .flat_map(|row| row.answers.iter().flat_map(|span| span.targets.iter().copied()))
            .collect();
        Self {
            ids,
            positions,
            visible: block_mask(&segments.to_device(device)),
            predicting: Tensor::from_slice(&predicting).to_device(device),
            source,
            target,
        }
    }
}

fn longest(rows: &[Row]) -> usize {
    rows.iter().map(Row::len).max().unwrap_or(0)
}

/// One list of each row, padded on the right: `[B, L]`.
fn padded(rows: &[Row], pick: &dyn Fn(&Row) -> &Vec<i64>, fill: i64) -> Tensor {
    let length = longest(rows);
    let mut all = Vec::with_capacity(rows.len() * length);
    for (number, row) in rows.iter().enumerate() {
        all.extend_from_slice(pick(row));
        all.resize((number + 1) * length, fill);
    }
    Tensor::from_slice(&all).view([rows.len() as i64, length as i64])
}

/// Token ids `[B, L]` and position ids `[3, B, L]` of rows padded on the right.
pub fn stack(rows: &[Row], device: Device) -> (Tensor, Tensor) {
    let ids = padded(rows, &|row| &row.ids, 0).to_device(device);
    let axes: Vec<Tensor> =
        (0..3).map(|axis| padded(rows, &|row| &row.positions[axis], 0)).collect();
    (ids, Tensor::stack(&axes, 0).to_device(device))
}

/// segments `[B, L]` -> `[B, 1, L, L]`: causal, and only within one's segment or to the prefix.
fn block_mask(segments: &Tensor) -> Tensor {
    let length = segments.size()[1];
    let query = segments.unsqueeze(2);
    let key = segments.unsqueeze(1);
    let causal = Tensor::ones([length, length], (Kind::Bool, segments.device())).tril(0);
    key.eq_tensor(&query).logical_or(&key.eq(PREFIX)).logical_and(&causal).unsqueeze(1)
}

/// Splits `lengths` into runs of consecutive rows whose padded size (rows × longest) stays within `budget`
/// tokens. A row longer than the budget gets a run of its own.
#[must_use]
pub fn pack(lengths: &[usize], budget: usize) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut longest) = (0, 0);
    for (at, length) in lengths.iter().enumerate() {
        let with = longest.max(*length);
        if at > start && (at - start + 1) * with > budget {
            runs.push(start..at);
            (start, longest) = (at, *length);
        } else {
            longest = with;
        }
    }
    if start < lengths.len() {
        runs.push(start..lengths.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pack;

    proptest! {
        /// A row in two micro-batches, or in none, would be learnt twice or never; a micro-batch above the
        /// budget would exhaust the memory that the user set.
        #[test]
        fn every_row_is_packed_once_and_within_the_budget(
            lengths in prop::collection::vec(1usize..60, 0..40),
            budget in 1usize..200,
        ) {
            let runs = pack(&lengths, budget);
            let covered: Vec<usize> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..lengths.len()).collect::<Vec<_>>());
            for run in runs {
                let longest = lengths[run.clone()].iter().max().copied().unwrap_or(0);
                prop_assert!(run.len() == 1 || run.len() * longest <= budget);
            }
        }
    }
}
