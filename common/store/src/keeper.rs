//! Keeps a lease alive, on a thread of its own: nothing that a process is busy with may starve it.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Guard, LeaseId, Store, StoreError, Write};

/// The shortest wait between two renewals.
const LEAST: Duration = Duration::from_millis(20);

/// Keys that are there as long as this process keeps their lease.
///
/// The lease is renewed at half of the time that remains, counted from the moment at which the last
/// successful renewal was sent. It is lost once that time is over, even if the store comes back: what was
/// lost is never registered again. Dropping a keeper revokes the lease, as [`Keeper::stop`] does.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<dyn Store>,
    lease: LeaseId,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    valid_until: Instant,
    stopped: bool,
    lost: Option<String>,
}

impl Keeper {
    /// Takes a lease, makes the writes that `writes` wants under it, if all `guards` hold, and keeps it
    /// alive. `on_lost` is called once, from the keeper's thread, with a sentence, when the lease is lost.
    /// Blocks as the store does.
    ///
    /// # Errors
    /// As [`Store::grant`] and [`Store::transact`]; then no key was registered, or it goes with its lease.
    pub fn start(
        store: Arc<dyn Store>,
        ttl: Duration,
        guards: &[Guard],
        writes: impl FnOnce(LeaseId) -> Vec<Write>,
        on_lost: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let sent = Instant::now();
        let lease = store.grant(ttl)?;
        if let Err(error) = store.transact(guards, &writes(lease)) {
            // Whether this works or not, the lease runs out by itself.
            let _ = store.revoke(lease);
            return Err(error);
        }
        let state = State { valid_until: sent + ttl, stopped: false, lost: None };
        let changed = Condvar::new();
        let shared = Arc::new(Shared { store, lease, state: Mutex::new(state), changed });
        let work = shared.clone();
        let thread = thread::Builder::new()
            .name("lease".into())
            .spawn(move || work.keep(on_lost))
            .map_err(|error| StoreError::Backend {
                action: "start the lease's thread",
                error: error.to_string(),
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The lease, for more keys that shall go with it.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.shared.lease
    }

    /// Until when the keys are there for certain, unless the lease is renewed before.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        self.shared.lock().valid_until
    }

    /// Why the lease is lost, once that is so: by the clock, whatever the thread is busy with.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        let state = self.shared.lock();
        state.lost.clone().or_else(|| (Instant::now() >= state.valid_until).then(late))
    }

    /// Revokes the lease, so that its keys go at once. Blocks as the store does.
    ///
    /// # Errors
    /// As [`Store::revoke`]; then the keys go when the lease runs out.
    pub fn stop(mut self) -> Result<(), StoreError> {
        self.end().unwrap_or(Ok(()))
    }

    /// `None` when it has ended already.
    fn end(&mut self) -> Option<Result<(), StoreError>> {
        let thread = self.thread.take()?;
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // It ends by itself within one call of the store.
        let _ = thread.join();
        Some(self.shared.store.revoke(self.shared.lease))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            tracing::warn!(%error, "a lease was left to run out");
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("lease", &self.shared.lease).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lease's state panics")
    }

    /// Renews until stopped or lost.
    fn keep(&self, on_lost: impl FnOnce(&str)) {
        let chance = RandomState::new();
        for turn in 0u64.. {
            let Some(until) = self.rest(chance.hash_one(turn)) else { return };
            let reason = match self.renew(until) {
                Ok(()) => continue,
                Err(reason) => reason,
            };
            self.lock().lost = Some(reason.clone());
            tracing::error!(lease = %self.lease, %reason, "a lease is lost");
            on_lost(&reason);
            return;
        }
    }

    /// Waits until the next renewal is due and says until when the lease is valid; `None`: stopped.
    fn rest(&self, chance: u64) -> Option<Instant> {
        let state = self.lock();
        let valid_until = state.valid_until;
        let wait = pause(valid_until.saturating_duration_since(Instant::now()), chance);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, wait, |state| !state.stopped)
            .expect("no holder of the lease's state panics");
        (!state.stopped).then_some(valid_until)
    }

    /// One renewal; an error is final.
    fn renew(&self, valid_until: Instant) -> Result<(), String> {
        let sent = Instant::now();
        let renewed =
            if sent < valid_until { self.store.renew(self.lease) } else { Ok(Duration::ZERO) };
        let mut state = self.lock();
        // Somebody may have read that it is lost: an answer that comes now changes nothing.
        if Instant::now() >= valid_until {
            return Err(late());
        }
        match renewed {
            Ok(left) => {
                state.valid_until = sent + left;
                Ok(())
            }
            Err(error @ StoreError::LeaseLost { .. }) => Err(error.to_string()),
            Err(error) => {
                tracing::warn!(lease = %self.lease, %error, "a lease could not be renewed yet");
                Ok(())
            }
        }
    }
}

fn late() -> String {
    "the lease was not renewed in time".to_owned()
}

/// How long to wait with `remaining` time left: about half of it, by chance a little less, so that those
/// who lost the store together do not come back together.
fn pause(remaining: Duration, chance: u64) -> Duration {
    let share = 0.4 + 0.1 * (chance % 1024) as f64 / 1024.0;
    remaining.mul_f64(share).max(LEAST).min(remaining)
}

#[cfg(test)]
mod tests {
    use super::pause;
    use std::time::Duration;

    #[test]
    fn renewals_come_at_half_of_what_remains_and_spread() {
        let remaining = Duration::from_secs(10);
        let pauses: Vec<_> = (0..1024).map(|chance| pause(remaining, chance)).collect();
        assert!(pauses.iter().all(|p| (4.0..=5.0).contains(&p.as_secs_f64())));
        assert!(pauses[0] != pauses[1023]);
        assert_eq!(pause(Duration::from_millis(5), 0), Duration::from_millis(5));
        assert_eq!(pause(Duration::ZERO, 0), Duration::ZERO);
    }
}
