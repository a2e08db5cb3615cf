//! What lives and dies with the process in a store that has only one: leases, the keys under them, and the
//! recent changes that watches read.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::{Change, LeaseId, StoreError, Watch, Write, clock::Clock};

/// Changes that are remembered for watches, and bytes of their values. A watch that lags behind further takes a
/// snapshot.
const MEMORY: (usize, usize) = (4096, 16 << 20);

/// The shared state, and a bell for watches.
#[derive(Debug, Default)]
pub(crate) struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

impl Live {
    /// The state, with leases that have run out gone.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no holder of the lock panics");
        if state.expire() {
            self.changed.notify_all();
        }
        state
    }

    /// Wakes the watches.
    pub fn ring(&self) {
        self.changed.notify_all();
    }

    /// What changed under `prefix` after `after`, waiting for it at most for `timeout`.
    fn wait(&self, follower: &mut Follower, timeout: Duration) -> Result<Vec<Change>, StoreError> {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.breaks != follower.breaks {
                return Err(StoreError::WatchBroken { error: "it was broken by a test".into() });
            }
            if follower.after < state.forgotten {
                return Err(StoreError::Compacted { revision: state.forgotten });
            }
            let news = |change: &&Change| change.revision > follower.after;
            let mine = |change: &&Change| change.key.starts_with(&follower.prefix);
            let seen: Vec<_> = state.log.iter().filter(news).filter(mine).cloned().collect();
            follower.after = state.revision;
            let now = Instant::now();
            if !seen.is_empty() || now >= until {
                return Ok(seen);
            }
            // A lease that runs out rings no bell: wake for the next.
            let next = state.next_expiry().map_or(until, |left| until.min(now + left));
            let nap = next.saturating_duration_since(now).max(Duration::from_millis(1));
            let (woken, _) =
                self.changed.wait_timeout(state, nap).expect("no holder of the lock panics");
            state = woken;
            if state.expire() {
                self.changed.notify_all();
            }
        }
    }
}

/// Leases, their keys, and the log of changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Number of the last change.
    pub revision: u64,
    /// Keys under leases; all others are the disk's.
    pub leased: BTreeMap<String, (Vec<u8>, LeaseId)>,
    /// By how much the clock is ahead.
    pub clock: Clock,
    leases: BTreeMap<LeaseId, Lease>,
    granted: i64,
    log: VecDeque<Change>,
    /// Bytes of the log's values.
    logged: usize,
    forgotten: u64,
    breaks: u64,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    until: Instant,
}

impl State {
    pub fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.granted += 1;
        let id = LeaseId(self.granted);
        self.leases.insert(id, Lease { ttl, until: self.clock.now() + ttl });
        id
    }

    pub fn renew(&mut self, id: LeaseId) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let lease = self.leases.get_mut(&id).ok_or(StoreError::LeaseLost { lease: id })?;
        lease.until = now + lease.ttl;
        Ok(lease.ttl)
    }

    pub fn require(&self, id: LeaseId) -> Result<(), StoreError> {
        match self.leases.contains_key(&id) {
            true => Ok(()),
            false => Err(StoreError::LeaseLost { lease: id }),
        }
    }

    /// Ends a lease and takes its keys away.
    pub fn end(&mut self, id: LeaseId) {
        self.leases.remove(&id);
        let gone: Vec<_> = self.leased.extract_if(.., |_, held| held.1 == id).collect();
        if !gone.is_empty() {
            self.revision += 1;
        }
        for (key, _) in gone {
            self.remember(key, None);
        }
    }

    /// Takes note of a transaction that the disk has made durable.
    pub fn apply(&mut self, writes: &[Write]) {
        self.revision += 1;
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    match lease {
                        Some(lease) => self.leased.insert(key.clone(), (value.clone(), *lease)),
                        None => self.leased.remove(key),
                    };
                    self.remember(key.clone(), Some(value.clone()));
                }
                Write::Delete { key } => {
                    self.leased.remove(key);
                    self.remember(key.clone(), None);
                }
            }
        }
    }

    /// From now on every watch that is open fails.
    pub fn break_watches(&mut self) {
        self.breaks += 1;
    }

    /// Forgets all changes up to now.
    pub fn compact(&mut self) {
        self.log.clear();
        self.logged = 0;
        self.forgotten = self.revision;
    }

    fn remember(&mut self, key: String, value: Option<Vec<u8>>) {
        self.logged += value.as_ref().map_or(0, Vec::len);
        self.log.push_back(Change { revision: self.revision, key, value });
        while self.log.len() > MEMORY.0 || self.logged > MEMORY.1 {
            let Some(old) = self.log.pop_front() else { return };
            self.logged -= old.value.map_or(0, |value| value.len());
            self.forgotten = old.revision;
        }
    }

    /// Time until the next lease runs out.
    fn next_expiry(&self) -> Option<Duration> {
        let now = self.clock.now();
        self.leases.values().map(|lease| lease.until.saturating_duration_since(now)).min()
    }

    /// Ends the leases that have run out; whether there were any.
    fn expire(&mut self) -> bool {
        let now = self.clock.now();
        let out = |(id, lease): (&LeaseId, &Lease)| (lease.until <= now).then_some(*id);
        let gone: Vec<LeaseId> = self.leases.iter().filter_map(out).collect();
        gone.iter().for_each(|id| self.end(*id));
        !gone.is_empty()
    }
}

/// Where one watch is.
#[derive(Debug)]
struct Follower {
    prefix: String,
    after: u64,
    breaks: u64,
}

/// A watch on [`Live`].
#[derive(Debug)]
pub(crate) struct LiveWatch {
    live: Arc<Live>,
    follower: Follower,
}

impl LiveWatch {
    pub fn new(live: Arc<Live>, prefix: &str, after: u64) -> Self {
        let breaks = live.lock().breaks;
        Self { live, follower: Follower { prefix: prefix.to_owned(), after, breaks } }
    }
}

impl Watch for LiveWatch {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<Change>, StoreError> {
        self.live.wait(&mut self.follower, timeout)
    }
}
