//! A store of one process: a disk for what stays, and [`Live`] for what goes with the process.

use std::{sync::Arc, time::Duration};

use crate::{
    Guard, LeaseId, Snapshot, Store, StoreError, Watch, Write,
    contract::each_key_once,
    live::{Live, LiveWatch},
};

/// What keeps the keys that have no lease. Nobody else writes it.
pub(crate) trait Disk: Send + Sync {
    /// Fails every call of the store while the disk cannot be used.
    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keys under a prefix, in byte order.
    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Makes all of these durable, or none: new values, and keys to take away.
    fn write(&self, writes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError>;
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Local<D> {
    pub disk: D,
    pub live: Arc<Live>,
}

impl<D: Disk> Store for Local<D> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.ready()?;
        let live = self.live.lock();
        match live.leased.get(key) {
            Some((value, _)) => Ok(Some(value.clone())),
            None => self.disk.get(key),
        }
    }

    fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.disk.ready()?;
        let live = self.live.lock();
        let mut entries = self.disk.list(prefix)?;
        let leased = live.leased.range(prefix.to_owned()..);
        let under = leased.take_while(|(key, _)| key.starts_with(prefix));
        entries.extend(under.map(|(key, (value, _))| (key.clone(), value.clone())));
        entries.sort_unstable();
        Ok(Snapshot { revision: live.revision, entries })
    }

    fn transact(&self, guards: &[Guard], writes: &[Write]) -> Result<(), StoreError> {
        self.disk.ready()?;
        each_key_once(writes)?;
        // Held to the end: between the guards and the writes nobody gets in.
        let mut live = self.live.lock();
        for guard in guards {
            let held = match live.leased.get(&guard.key) {
                Some((value, _)) => Some(value.clone()),
                None => self.disk.get(&guard.key)?,
            };
            if held != guard.expected {
                return Err(StoreError::GuardFailed { key: guard.key.clone() });
            }
        }
        let mut durable = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value, lease: None } => {
                    durable.push((key.as_str(), Some(value.as_slice())));
                }
                Write::Put { key, lease: Some(lease), .. } => {
                    live.require(*lease)?;
                    durable.push((key.as_str(), None));
                }
                Write::Delete { key } => durable.push((key.as_str(), None)),
            }
        }
        self.disk.write(&durable)?;
        live.apply(writes);
        self.live.ring();
        Ok(())
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.disk.ready()?;
        Ok(self.live.lock().grant(ttl))
    }

    fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        self.disk.ready()?;
        self.live.lock().renew(lease)
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.disk.ready()?;
        self.live.lock().end(lease);
        self.live.ring();
        Ok(())
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Watch>, StoreError> {
        self.disk.ready()?;
        Ok(Box::new(LiveWatch::new(self.live.clone(), prefix, after)))
    }
}
