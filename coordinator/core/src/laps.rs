//! How long each phase of a step took.

use std::collections::BTreeMap;

use crate::Millis;

/// Milliseconds by phase since the last lap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Laps {
    phase: &'static str,
    since: Millis,
    spent: BTreeMap<String, u64>,
}

impl Laps {
    /// A phase begins. Returns whether it is another one than before.
    pub fn enter(&mut self, now: Millis, phase: &'static str) -> bool {
        self.book(now);
        std::mem::replace(&mut self.phase, phase) != phase
    }

    /// A step is over: what each phase took, and start again.
    pub fn lap(&mut self, now: Millis) -> BTreeMap<String, u64> {
        self.book(now);
        std::mem::take(&mut self.spent)
    }

    fn book(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.since);
        self.since = now;
        // Before the first phase nothing is spent on a step.
        if passed > 0 && !self.phase.is_empty() {
            *self.spent.entry(self.phase.to_owned()).or_insert(0) += passed;
        }
    }
}
