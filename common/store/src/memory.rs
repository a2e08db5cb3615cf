//! A store in memory, for tests, with a switch for everything that can go wrong. Clones share their
//! contents, so that a test can "restart" a process on the same store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Guard, LeaseId, Snapshot, Store, StoreError, Watch, Write,
    local::{Disk, Local},
};

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    local: Arc<Local<Map>>,
}

impl Memory {
    /// From now on every write fails (`true`) or works (`false`), as on a full disk.
    pub fn fail_writes(&self, broken: bool) {
        self.local.disk.broken.store(broken, Ordering::SeqCst);
    }

    /// From now on nothing gets an answer (`true`) or all does (`false`). Time goes on, and leases with it.
    pub fn be_unavailable(&self, away: bool) {
        self.local.disk.away.store(away, Ordering::SeqCst);
    }

    /// Breaks every watch that is open.
    pub fn break_watches(&self) {
        self.local.live.lock().break_watches();
        self.local.live.ring();
    }

    /// Forgets all changes up to now: watches from before are told that they are too late.
    pub fn compact(&self) {
        self.local.live.lock().compact();
        self.local.live.ring();
    }

    /// Lets this much time pass for leases.
    pub fn advance(&self, by: Duration) {
        self.local.live.lock().clock.advance(by);
        self.local.live.ring();
    }
}

impl Store for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.local.get(key)
    }

    fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.local.list(prefix)
    }

    fn transact(&self, guards: &[Guard], writes: &[Write]) -> Result<(), StoreError> {
        self.local.transact(guards, writes)
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.local.grant(ttl)
    }

    fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        self.local.renew(lease)
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.local.revoke(lease)
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Watch>, StoreError> {
        self.local.watch(prefix, after)
    }
}

/// The map, and its switches.
#[derive(Debug, Default)]
struct Map {
    map: Mutex<BTreeMap<String, Vec<u8>>>,
    broken: AtomicBool,
    away: AtomicBool,
}

impl Map {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.map.lock().expect("no holder of the map's lock panics")
    }
}

impl Disk for Map {
    fn ready(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable {
                place: "memory".into(),
                after: Duration::ZERO,
                error: "it is away".into(),
            }),
            false => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let map = self.lock();
        let under = map.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(under.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, writes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Backend { action: "write", error: "no space left".into() });
        }
        let mut map = self.lock();
        for (key, value) in writes {
            match value {
                Some(value) => map.insert((*key).to_owned(), value.to_vec()),
                None => map.remove(*key),
            };
        }
        Ok(())
    }
}
