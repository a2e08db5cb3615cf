//! How long to wait before another try.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Pauses that double up to a limit, each shortened by chance, so that workers that lost the
/// coordinator together don't come back together.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
    chance: RandomState,
    count: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        // A recovery waits for the last of them: a thousand workers that look for their coordinator then ask a store some
        // 2,700 times a second, which it bears.
        Self::new(Duration::from_millis(50), Duration::from_millis(500))
    }
}

impl Backoff {
    /// Starts at `first` and never passes `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first.min(most), most, chance: RandomState::new(), count: 0 }
    }

    /// The next pause: between a half and the whole of the current step.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        self.count += 1;
        // RandomState is keyed by the system's randomness: enough for jitter, and no dependency.
        let mut hasher = self.chance.build_hasher();
        hasher.write_u64(self.count);
        let share = (hasher.finish() % 1024) as f64 / 1024.0;
        step.mul_f64(0.5 + 0.5 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_differ_between_callers() {
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut pauses = [Backoff::new(first, most), Backoff::new(first, most)]
            .map(|mut b| (0..12).map(|_| b.pause()).collect::<Vec<_>>());
        assert_ne!(pauses[0], pauses[1]);
        for run in &mut pauses {
            let mut step = first;
            for pause in run {
                assert!(*pause >= step / 2 && *pause <= step, "{pause:?} of {step:?}");
                step = (step * 2).min(most);
            }
        }
    }
}
