//! A store in memory, for tests. Clones share their contents, so that a test can "restart" a coordinator
//! on the same store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Guard, Put, Store, StoreError};

/// The map, and a switch that makes every write fail.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    map: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    broken: Arc<AtomicBool>,
}

impl Memory {
    /// From now on every write fails (`true`) or works (`false`), as on a full disk.
    pub fn fail_writes(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.map.lock().expect("no holder of the map's lock panics")
    }
}

impl Store for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let map = self.lock();
        let from = map.range(prefix.to_owned()..);
        let under = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(under.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn transact(&self, guard: &Guard, puts: &[Put]) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Backend { action: "write", error: "no space left".into() });
        }
        let mut map = self.lock();
        if map.get(&guard.key) != guard.expected.as_ref() {
            return Err(StoreError::GuardFailed { key: guard.key.clone() });
        }
        for put in puts {
            map.insert(put.key.clone(), put.value.clone());
        }
        Ok(())
    }
}
