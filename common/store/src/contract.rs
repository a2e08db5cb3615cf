//! The contract of a store.

use std::{collections::BTreeSet, fmt, time::Duration};

use crate::StoreError;

/// A small, durable, ordered key-value map. Calls block, each no longer than the store's own patience; make
/// them off an async runtime's threads.
pub trait Store: Send + Sync {
    /// The value of a key, if it has one. Linearizable: never older than any write that was acknowledged,
    /// to whomever, before this call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Refused`] or [`StoreError::Backend`].
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All keys that start with `prefix`, and their values, as they were at one moment, which is not older
    /// than any write that was acknowledged before this call.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn list(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Makes all of `writes` durable in one transaction, or none of them: nothing is written unless every
    /// guard holds in that transaction. `writes` names no key twice. Once this returns `Ok`, what was
    /// written without a lease survives a crash of the process and of the host.
    ///
    /// # Errors
    /// [`StoreError::GuardFailed`] when a guard does not hold and [`StoreError::LeaseLost`] when a lease is
    /// gone: then nothing was written. As [`Store::get`] otherwise; after [`StoreError::Unavailable`] it is
    /// not known whether the writes were made, or will still be.
    fn transact(&self, guards: &[Guard], writes: &[Write]) -> Result<(), StoreError>;

    /// A new lease: keys written under it vanish once it has not been renewed for `ttl`. A store may grant
    /// a longer one, never a shorter one.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Gives a lease its full time again and says how long that is. A caller may rely on it only from the
    /// moment at which it made this call, not from that of the answer.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when it has run out, was revoked, or was granted to another process; as [`Store::get`] otherwise.
    fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError>;

    /// Ends a lease: its keys go at once. One that has ended already is no error.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Follows the keys that start with `prefix`, from just after a snapshot's revision.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn watch(&self, prefix: &str, after: u64) -> Result<Box<dyn Watch>, StoreError>;
}

/// Changes as they happen, in order. It does not mend itself.
pub trait Watch: Send {
    /// Waits for the next changes, at most for `timeout`; none: nothing has happened.
    ///
    /// # Errors
    /// [`StoreError::WatchBroken`] or [`StoreError::Compacted`]: changes may have been missed. Take a
    /// snapshot, and watch from there.
    fn wait(&mut self, timeout: Duration) -> Result<Vec<Change>, StoreError>;
}

/// What a prefix held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The moment: a watch from here misses nothing.
    pub revision: u64,
    /// Keys and values, in byte order of the keys.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// A lease. Only the process that it was granted to can renew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    /// In hexadecimal, as etcdctl prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A condition of a transaction: a key holds exactly this value (or is absent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which key.
    pub key: String,
    /// The value it must have; `None`: it must be absent.
    pub expected: Option<Vec<u8>>,
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Gives a key a value.
    Put {
        /// Which key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease with which it goes; `None`: it stays.
        lease: Option<LeaseId>,
    },
    /// Takes a key away, if it is there.
    Delete {
        /// Which key.
        key: String,
    },
}

impl Write {
    /// Gives `key` a value that stays.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Gives `key` a value that goes with `lease`.
    pub fn leased(key: impl Into<String>, value: impl Into<Vec<u8>>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: Some(lease) }
    }

    /// Takes `key` away.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The lease with which what is written goes.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Put { lease, .. } => *lease,
            Self::Delete { .. } => None,
        }
    }

    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Refuses a transaction that writes one key twice: etcd does, so all do.
pub(crate) fn each_key_once(writes: &[Write]) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    match writes.iter().find(|write| !seen.insert(write.key())) {
        Some(twice) => Err(StoreError::Backend {
            action: "write",
            error: format!("`{}` is written twice in one transaction", twice.key()),
        }),
        None => Ok(()),
    }
}

/// One change that a watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// Which key.
    pub key: String,
    /// Its value now; `None`: it is gone.
    pub value: Option<Vec<u8>>,
}
