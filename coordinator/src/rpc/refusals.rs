//! Telling the operator who was not let in, in the log and in the event stream.
//!
//! Anybody who reaches the port can be turned away as often as he likes, so only so many are told of one
//! by one in a minute; the others are counted, and the minute's end says how many they were. That bounds
//! what a stranger can write onto the disk.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::driver::Handle;

/// Refusals told of one by one in a minute.
const LINES: u32 = 10;
/// The minute.
const MINUTE: Duration = Duration::from_secs(60);

/// Tells of refusals.
pub struct Refusals {
    driver: Handle,
    ration: Mutex<Ration>,
}

impl Refusals {
    /// Tells the log, and the event stream of `driver`.
    #[must_use]
    pub fn new(driver: Handle) -> Arc<Self> {
        Arc::new(Self { driver, ration: Mutex::new(Ration::new(Instant::now())) })
    }

    /// Somebody was not let in. Call it within a runtime.
    pub fn tell(self: &Arc<Self>, sentence: String) {
        match self.ration().ask(Instant::now()) {
            Share::Tell => self.write(sentence),
            Share::Count => {}
            Share::CountFrom(end) => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep_until(end).await;
                    let untold = std::mem::take(&mut this.ration().untold);
                    this.write(format!(
                        "{untold} further connections were turned away within a minute; who hammers the port \
                         can be kept out with a firewall"
                    ));
                });
            }
        }
    }

    fn write(&self, sentence: String) {
        tracing::warn!("{sentence}");
        self.driver.note("join_refused", sentence);
    }

    fn ration(&self) -> std::sync::MutexGuard<'_, Ration> {
        // Numbers only: a panicking holder leaves nothing half-done.
        self.ration.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of one refusal.
#[derive(Debug, PartialEq, Eq)]
enum Share {
    Tell,
    Count,
    /// The first that is only counted; the count is to be told then.
    CountFrom(Instant),
}

#[derive(Debug)]
struct Ration {
    since: Instant,
    told: u32,
    untold: u64,
}

impl Ration {
    fn new(now: Instant) -> Self {
        Self { since: now, told: 0, untold: 0 }
    }

    fn ask(&mut self, now: Instant) -> Share {
        // What was not told yet is told by the task that waits for it, at most once a minute.
        if now.duration_since(self.since) >= MINUTE && self.untold == 0 {
            *self = Self::new(now);
        }
        if self.told < LINES {
            self.told += 1;
            return Share::Tell;
        }
        self.untold += 1;
        match self.untold {
            1 => Share::CountFrom(now.max(self.since + MINUTE)),
            _ => Share::Count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a stranger that hammers the port can fill the disk, or goes uncounted.
    #[test]
    fn a_minute_has_so_many_lines_and_one_count() {
        let start = Instant::now();
        let mut ration = Ration::new(start);
        let mut asked = |at: Duration| ration.ask(start + at);
        for _ in 0..LINES {
            assert_eq!(asked(Duration::ZERO), Share::Tell);
        }
        assert_eq!(asked(Duration::from_secs(1)), Share::CountFrom(start + MINUTE));
        for second in 2..90 {
            assert_eq!(asked(Duration::from_secs(second)), Share::Count);
        }
        assert_eq!(std::mem::take(&mut ration.untold), 89);
        assert_eq!(ration.ask(start + 2 * MINUTE), Share::Tell, "a new minute");
    }
}
