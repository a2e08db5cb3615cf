//! The contract of a store.

use std::path::PathBuf;

/// A small, durable, ordered key-value map. Calls block; the driver makes them off its runtime threads.
pub trait Store: Send + Sync {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Backend`] when the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All keys that start with `prefix` and their values, in byte order of the keys.
    ///
    /// # Errors
    /// [`StoreError::Backend`] when the store cannot be read.
    fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Makes all of `puts` durable, or none of them: nothing is written unless `guard` holds in the same
    /// transaction. Once this returns `Ok`, the values survive a crash of the process and of the host.
    ///
    /// # Errors
    /// [`StoreError::GuardFailed`] when the guard does not hold, [`StoreError::Backend`] when the store
    /// cannot be written.
    fn transact(&self, guard: &Guard, puts: &[Put]) -> Result<(), StoreError>;
}

/// The condition of a transaction: a key holds exactly this value (or is absent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which key.
    pub key: String,
    /// The value it must have; `None`: it must be absent.
    pub expected: Option<Vec<u8>>,
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Which key.
    pub key: String,
    /// Its new value.
    pub value: Vec<u8>,
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the store.
    #[error(
        "another coordinator is already running this run ({}); wait for it to end, or look at it with \
         `medevo-coord status {}`", run_dir.display(), run_dir.display()
    )]
    Busy {
        /// Run directory of the store.
        run_dir: PathBuf,
    },
    /// The guard did not hold: another coordinator has taken over (INV-8).
    #[error(
        "`{key}` in the store is not what this coordinator wrote: another coordinator has taken over this \
         run, so this one must stop"
    )]
    GuardFailed {
        /// The guarded key.
        key: String,
    },
    /// The backend failed.
    #[error("the run's store failed to {action}: {error}; check the disk, then resume the run")]
    Backend {
        /// What was tried ("open", "read", "write").
        action: &'static str,
        /// What the backend said.
        error: String,
    },
    /// A value is not what this version writes.
    #[error(
        "the store's value at `{key}` cannot be read: {error}; was it written by a newer version?"
    )]
    Damaged {
        /// Which key.
        key: String,
        /// What is wrong with it.
        error: String,
    },
}
