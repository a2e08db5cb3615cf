//! The time by which leases in a process run out.

use std::time::{Duration, Instant};

/// The system's monotonic time, and what a test has added to it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead: Duration,
}

impl Clock {
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Jumps ahead.
    pub fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }
}
