//! Who was let in, and which generation stands: what the RPC layer and the launcher look up without
//! asking the driver. The core's own membership decides; this never does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use medevo_types::{Generation, Incarnation, WorkerId, WorkerTag};
use tokio::sync::watch;

/// Admitted lives, the current generation, and who knows that the run is over.
#[derive(Debug)]
pub struct Admission {
    lives: Mutex<BTreeMap<WorkerId, Incarnation>>,
    generation: watch::Sender<Generation>,
    dismissed: watch::Sender<BTreeSet<WorkerId>>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            lives: Mutex::default(),
            generation: watch::Sender::new(Generation::default()),
            dismissed: watch::Sender::new(BTreeSet::new()),
        }
    }
}

impl Admission {
    /// A worker was let in; an earlier life of it is forgotten.
    pub(super) fn admit(&self, tag: &WorkerTag) {
        self.lives().insert(tag.worker.clone(), tag.incarnation);
    }

    /// A generation is on record.
    pub(super) fn open(&self, generation: Generation) {
        self.generation.send_replace(generation);
    }

    /// A worker is being told to stop.
    pub(super) fn dismiss(&self, tag: &WorkerTag) {
        self.dismissed.send_modify(|dismissed| {
            dismissed.insert(tag.worker.clone());
        });
    }

    /// Who was told to stop, now and as it grows.
    pub(super) fn dismissed(&self) -> watch::Receiver<BTreeSet<WorkerId>> {
        self.dismissed.subscribe()
    }

    /// Whether this life was let in and is the latest of its worker.
    #[must_use]
    pub fn knows(&self, tag: &WorkerTag) -> bool {
        self.lives().get(&tag.worker) == Some(&tag.incarnation)
    }

    /// The latest life of a worker.
    #[must_use]
    pub fn latest(&self, worker: &WorkerId) -> Option<WorkerTag> {
        let incarnation = *self.lives().get(worker)?;
        Some(WorkerTag { worker: worker.clone(), incarnation })
    }

    /// The current generation, now and as it changes.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Incarnation>> {
        // The map is whole after every single insert, so a panicking holder leaves nothing half-done.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
