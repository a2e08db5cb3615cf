//! The embedded store: redb, one ACID file in the run directory, one process at a time.

use std::{fmt::Display, path::Path, time::Duration};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

use crate::{
    Guard, LeaseId, Snapshot, Store, StoreError, Watch, Write,
    local::{Disk, Local},
};

/// The one table.
const RUN: TableDefinition<&str, &[u8]> = TableDefinition::new("run");

/// Memory that redb may keep of the file, bytes. Records are appended and read again only at a start, so a
/// cache buys nothing; redb's own choice, 1 GiB, would let the coordinator grow with every step of a run.
const CACHE: usize = 1 << 20;

/// `store.redb` in a run directory. Leases, and the keys under them, live in the process and go with it.
#[derive(Debug)]
pub struct Embedded {
    local: Local<Redb>,
}

impl Embedded {
    /// Opens (or creates) the store of the run in `run_dir`.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process has it open, [`StoreError::Backend`] when the file cannot
    /// be opened or is no store.
    pub fn open(run_dir: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(run_dir.join("store.redb"))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => {
                    StoreError::Busy { run_dir: run_dir.to_owned() }
                }
                other => backend("open")(other),
            })?;
        // Reads of a table that no write has made yet would fail: make it now.
        let write = database.begin_write().map_err(backend("open"))?;
        write.open_table(RUN).map_err(backend("open"))?;
        write.commit().map_err(backend("open"))?;
        Ok(Self { local: Local { disk: Redb { database }, live: Default::default() } })
    }
}

impl Store for Embedded {
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

/// The file.
#[derive(Debug)]
struct Redb {
    database: Database,
}

impl Disk for Redb {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.database.begin_read().map_err(backend("read"))?;
        let table = read.open_table(RUN).map_err(backend("read"))?;
        let value = table.get(key).map_err(backend("read"))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = self.database.begin_read().map_err(backend("read"))?;
        let table = read.open_table(RUN).map_err(backend("read"))?;
        let mut found = Vec::new();
        for entry in table.range(prefix..).map_err(backend("read"))? {
            let (key, value) = entry.map_err(backend("read"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(found)
    }

    fn write(&self, writes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(backend("write"))?;
        {
            let mut table = write.open_table(RUN).map_err(backend("write"))?;
            for (key, value) in writes {
                match value {
                    Some(value) => table.insert(*key, *value).map_err(backend("write"))?,
                    None => table.remove(*key).map_err(backend("write"))?,
                };
            }
        }
        write.commit().map_err(backend("write"))
    }
}

fn backend<E: Display>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Backend { action, error: error.to_string() }
}
