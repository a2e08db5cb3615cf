//! The run's monotonic clock, in the core's milliseconds.

use std::time::Instant;

use medevo_core::api::Millis;

/// Milliseconds since the coordinator started. Commands are stamped where they arrive, so that a driver
/// that was busy for a while does not take workers for silent whose heartbeats were waiting for it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
