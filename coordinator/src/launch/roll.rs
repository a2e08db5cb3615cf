//! The workers' leases in the run's etcd, told to the driver: who has one is alive, whose is gone is lost.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use medevo_store::{Store, WORKERS};
use medevo_types::{Incarnation, WorkerId, WorkerTag};

use crate::driver::Handle;

/// How often everyone who has a lease is vouched for; also the longest wait for a change.
const ROUND: Duration = Duration::from_millis(500);
/// How often all leases are looked at, whatever the watch says.
const SNAPSHOT: Duration = Duration::from_secs(5);

/// A thread of its own that follows the leases; dropped, it ends.
pub(super) struct Roll {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Roll {
    /// Follows the leases of the run whose store this is.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn follow(store: Arc<dyn Store>, driver: Handle) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Handle::current();
        let (stopped, mut roll) = (stop.clone(), medevo_store::Roll::new(store, WORKERS, SNAPSHOT));
        let thread = Builder::new()
            .name("roll".to_owned())
            .spawn(move || {
                let mut known = BTreeSet::new();
                while !stopped.load(Ordering::SeqCst) {
                    match roll.next(ROUND) {
                        Ok(_) => {
                            let now: BTreeSet<WorkerTag> =
                                roll.known().keys().filter_map(|key| tag(key)).collect();
                            for gone in known.difference(&now) {
                                runtime.block_on(driver.gone(WorkerTag::clone(gone)));
                            }
                            known = now;
                        }
                        // Nothing can be said: whoever was there is not gone for that.
                        Err(error) => tracing::warn!("the workers' leases cannot be seen: {error}"),
                    }
                    for tag in known.iter().filter(|tag| driver.admission().knows(tag)) {
                        // A rejection is counted by the core; the worker learns of it when it asks.
                        let _ = runtime.block_on(driver.heartbeat(tag.clone()));
                    }
                }
            })
            .context("starting the thread that follows the workers' leases")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Roll {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It ends by itself within one call of the store; nobody waits for that.
        drop(self.thread.take());
    }
}

/// Whose lease a key stands for.
fn tag(key: &str) -> Option<WorkerTag> {
    let (worker, incarnation) = key.strip_prefix(WORKERS)?.rsplit_once('/')?;
    let incarnation = Incarnation(incarnation.parse().ok()?);
    Some(WorkerTag { worker: WorkerId(worker.to_owned()), incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_a_worker_and_its_life() {
        let found = tag("workers/node-b/gpu0/1700").expect("a worker's key");
        assert_eq!((found.worker, found.incarnation), ("node-b/gpu0".into(), Incarnation(1700)));
        assert_eq!(tag("workers/w0"), None);
        assert_eq!(tag("leader"), None);
    }
}
