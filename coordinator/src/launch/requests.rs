//! What operators ask of the run through its directory, looked at twice a second.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use crate::run_dir::{Request, RunDir};

/// How often the run directory is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Follows a run's requests; dropped, it ends.
pub(super) struct Requests {
    seen: watch::Receiver<Option<Request>>,
    task: JoinHandle<()>,
}

impl Requests {
    /// Follows what is asked of the run from now on; `stale` is what was asked before.
    pub(super) fn follow(run_dir: &RunDir, stale: Option<Request>) -> Self {
        let (sender, seen) = watch::channel(None);
        let run_dir = run_dir.clone();
        let task = tokio::spawn(async move {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = stale;
            loop {
                looks.tick().await;
                let run_dir = run_dir.clone();
                // A shared file system may take its time; nothing else waits for it.
                let Ok(now) = spawn_blocking(move || run_dir.asked()).await else { return };
                if now.is_some() && now != last {
                    last.clone_from(&now);
                    sender.send_replace(now);
                }
            }
        });
        Self { seen, task }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Request {
        loop {
            if self.seen.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(request) = self.seen.borrow_and_update().clone() {
                return request;
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.task.abort();
    }
}
