//! A rendezvous within one process.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};

use crate::rendezvous::Rendezvous;

/// A store in memory: for tests, and for ranks that are threads of one process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    keys: Mutex<HashMap<String, Vec<u8>>>,
    changed: Condvar,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // No code that can panic runs under the lock, so a poisoned map is still whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rendezvous for MemoryStore {
    fn set(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.lock().insert(key.to_owned(), value.to_vec());
        self.changed.notify_all();
        Ok(())
    }

    fn get(&self, key: &str, deadline: Instant) -> anyhow::Result<Vec<u8>> {
        let mut keys = self.lock();
        loop {
            if let Some(value) = keys.get(key) {
                return Ok(value.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nobody set the rendezvous key {key} in time");
            }
            keys = self
                .changed
                .wait_timeout(keys, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(keys, _)| keys);
        }
    }

    fn add(&self, key: &str, delta: i64) -> anyhow::Result<i64> {
        let mut keys = self.lock();
        // Counters are kept as decimal text, the way c10d's own stores keep them, so that `get` reads
        // the same from all of them.
        let old = match keys.get(key) {
            None => 0,
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .with_context(|| format!("the rendezvous key {key} is not a counter"))?,
        };
        let new = old + delta;
        keys.insert(key.to_owned(), new.to_string().into_bytes());
        self.changed.notify_all();
        Ok(new)
    }

    fn check(&self, wanted: &[&str]) -> anyhow::Result<bool> {
        let keys = self.lock();
        Ok(wanted.iter().all(|key| keys.contains_key(*key)))
    }
}
