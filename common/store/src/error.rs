//! What can go wrong in a store.

use std::{path::PathBuf, time::Duration};

use crate::LeaseId;

/// What can go wrong in a store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the embedded store.
    #[error(
        "another coordinator is already running this run ({}); wait for it to end, or look at it with \
         `medevo-coord status {}`", run_dir.display(), run_dir.display()
    )]
    Busy {
        /// Run directory of the store.
        run_dir: PathBuf,
    },
    /// A guard did not hold, so nothing was written (INV-8).
    #[error(
        "`{key}` in the store is not what this process expects: another has taken over, so this one must stop"
    )]
    GuardFailed {
        /// The guarded key.
        key: String,
    },
    /// A lease has run out or was revoked; its keys are gone.
    #[error("the store knows lease {lease} no longer: it was not renewed in time, or was revoked")]
    LeaseLost {
        /// The lease.
        lease: LeaseId,
    },
    /// No answer, however often it was asked. It may come back: try again.
    #[error("the store at {place} did not answer for {:.1} s: {error}", after.as_secs_f64())]
    Unavailable {
        /// Where it is.
        place: String,
        /// For how long it was asked.
        after: Duration,
        /// What the last try said.
        error: String,
    },
    /// A watch ended; changes may have been missed.
    #[error("a watch of the store broke: {error}")]
    WatchBroken {
        /// What broke it.
        error: String,
    },
    /// The changes that a watch asked for, or the snapshot that was read, are forgotten already.
    #[error("the store has forgotten its changes up to revision {revision}")]
    Compacted {
        /// The oldest revision that is still known; 0: it did not say.
        revision: u64,
    },
    /// The store answers, but not to us: trying again will not help.
    #[error("the store at {endpoint} refuses this run: {error}")]
    Refused {
        /// Which endpoint.
        endpoint: String,
        /// Why, and the way out.
        error: String,
    },
    /// The backend failed.
    #[error("the run's store failed to {action}: {error}; check the store, then resume the run")]
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

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::WatchBroken { .. } | Self::Compacted { .. })
    }
}
