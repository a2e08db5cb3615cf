//! Copies published checkpoints beside the run: one at a time, the newest first. The run never waits for it, except at
//! its end, and then not longer than it was told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use medevo_core::api::{CheckpointRef, RunSpec};
use medevo_types::{Step, Term};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{Retention, retention::expired};
use crate::copies::Destination;

/// First pause between two tries at a copy; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How much longer than told the end of a run waits for the copier to say what became of the last copy.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where copies go, and which of them stay.
#[derive(Clone, Debug)]
pub struct CopyTo {
    /// The run's folder there.
    pub destination: Destination,
    /// Which copies stay.
    pub retention: Retention,
    /// Deadline of one copy.
    pub timeout: Duration,
}

/// A checkpoint to copy.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) checkpoint: CheckpointRef,
    /// The KL reference that it names: without it the copy could not be gone on from.
    pub(super) reference: Option<CheckpointRef>,
    /// Scores so far, for what stays.
    pub(super) scores: BTreeMap<Step, f64>,
}

impl Job {
    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.reference.iter().chain([&self.checkpoint]).map(|checkpoint| checkpoint.dir.clone())
    }
}

/// At most one copy under way and one waiting.
#[derive(Default)]
struct Slot {
    busy: Option<Job>,
    waiting: Option<Job>,
}

struct Shared {
    slot: Mutex<Slot>,
    wake: Notify,
    now: watch::Sender<Option<String>>,
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Every change of a slot is one assignment, so it is whole even then.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next job; with none left the copier is idle.
    fn take(&self) -> Option<Job> {
        let mut slot = self.slot();
        slot.busy = slot.waiting.take();
        if slot.busy.is_none() {
            self.now.send_replace(None);
        }
        slot.busy.clone()
    }
}

/// What is being copied, for whoever waits for it.
#[derive(Clone)]
pub struct Copying {
    now: watch::Receiver<Option<String>>,
    stop_by: Arc<watch::Sender<Option<Instant>>>,
}

impl Copying {
    /// What is being copied; none when nothing is left to copy.
    #[must_use]
    pub fn now(&self) -> Option<String> {
        self.now.borrow().clone()
    }

    /// Waits until nothing is left to copy. What is not copied within `limit` is given up, and said to be.
    pub async fn settle(&self, limit: Duration) {
        self.stop_by.send_replace(Some(Instant::now() + limit));
        let mut now = self.now.clone();
        // Past the deadline there is nothing more to wait for.
        let _ = timeout(limit + LAST_WORDS, now.wait_for(Option::is_none)).await;
    }
}

/// The copier. Dropped, it stops.
pub(super) struct Copier {
    shared: Arc<Shared>,
    destination: Destination,
    news: mpsc::Sender<Value>,
    copying: Copying,
    task: JoinHandle<()>,
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Copier {
    /// Starts it. `history` are the checkpoints on record, oldest first; what is copied goes into `news`.
    pub(super) fn start(
        to: CopyTo,
        term: Term,
        spec: RunSpec,
        history: Vec<CheckpointRef>,
        news: mpsc::Sender<Value>,
    ) -> Self {
        let (now, now_seen) = watch::channel(None);
        let (stop_by, stop_seen) = watch::channel(None);
        let shared = Arc::new(Shared { slot: Mutex::default(), wake: Notify::new(), now });
        let destination = to.destination.clone();
        let worker = Worker {
            to,
            term,
            spec,
            history,
            copies: None,
            shared: shared.clone(),
            news: news.clone(),
            stop_by: stop_seen,
        };
        let task = tokio::spawn(worker.run());
        let copying = Copying { now: now_seen, stop_by: Arc::new(stop_by) };
        Self { shared, destination, news, copying, task }
    }

    pub(super) fn copying(&self) -> Copying {
        self.copying.clone()
    }

    /// Has a checkpoint copied next. One that still waits gives its place to it.
    pub(super) fn offer(&self, job: Job) {
        let step = job.checkpoint.step;
        let url = url_of(&self.destination, &job.checkpoint.dir);
        let passed = {
            let mut slot = self.shared.slot();
            self.shared.now.send_replace(Some(format!("the checkpoint of step {step} to {url}")));
            slot.waiting.replace(job)
        };
        self.shared.wake.notify_one();
        let Some(passed) = passed.map(|job| job.checkpoint) else { return };
        let reason = format!(
            "copying is slower than the run writes: the checkpoint of step {step} takes the place of that of \
             step {}, which still waited",
            passed.step
        );
        tracing::warn!("{reason}");
        let url = url_of(&self.destination, &passed.dir);
        let event = json!({
            "event": "checkpoint_copy_skipped", "step": passed.step, "url": url, "reason": reason,
        });
        if self.news.try_send(event).is_err() {
            tracing::warn!("the event of a skipped copy was lost: too much news at once");
        }
    }

    /// Directories that must stay until they are copied.
    pub(super) fn needed(&self) -> BTreeSet<PathBuf> {
        let slot = self.shared.slot();
        slot.busy.iter().chain(&slot.waiting).flat_map(Job::dirs).collect()
    }
}

fn url_of(destination: &Destination, dir: &Path) -> String {
    destination.url_of(&dir.file_name().unwrap_or_default().to_string_lossy())
}

struct Worker {
    to: CopyTo,
    term: Term,
    spec: RunSpec,
    /// On record, oldest first.
    history: Vec<CheckpointRef>,
    /// Names of whole copies; none before the destination was listed.
    copies: Option<BTreeSet<String>>,
    shared: Arc<Shared>,
    news: mpsc::Sender<Value>,
    stop_by: watch::Receiver<Option<Instant>>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let Some(job) = self.shared.take() else {
                self.shared.wake.notified().await;
                continue;
            };
            let (step, started) = (job.checkpoint.step, Instant::now());
            let url = url_of(&self.to.destination, &job.checkpoint.dir);
            let mut stop_by = self.stop_by.clone();
            let copied = tokio::select! {
                copied = self.copy(&job) => copied,
                () = stopped(&mut stop_by) => {
                    Err("it was not done in time after the run's end; `resume` copies it".to_owned())
                }
            };
            let event = match copied {
                Ok(None) => continue,
                Ok(Some(bytes)) => json!({
                    "event": "checkpoint_copied", "step": step, "url": url,
                    "seconds": started.elapsed().as_secs_f64(), "bytes": bytes,
                }),
                Err(error) => {
                    tracing::error!(
                        "the checkpoint of step {step} was not copied to {url}: {error}"
                    );
                    json!({
                        "event": "checkpoint_copy_failed", "step": step, "url": url, "error": error,
                    })
                }
            };
            // The driver has left if this fails; nobody reads the news any more.
            let _ = self.news.send(event).await;
        }
    }

    /// Bytes that were copied; none when the copy was there already.
    async fn copy(&mut self, job: &Job) -> Result<Option<u64>, String> {
        let deadline = Instant::now() + self.to.timeout;
        let mut done = BTreeMap::new();
        let mut pause = PAUSE;
        let mut last = String::new();
        loop {
            match timeout_at(deadline, self.try_to_copy(job, &mut done)).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => {}
            }
            if self.shared.slot().waiting.is_some() {
                return Err(format!("{last}; a newer checkpoint takes its turn"));
            }
            if Instant::now() + pause >= deadline {
                let colon = if last.is_empty() { "" } else { ": " };
                let limit = self.to.timeout.as_secs_f64();
                return Err(format!("it was not done within {limit} s{colon}{last}"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_to_copy(
        &mut self,
        job: &Job,
        done: &mut BTreeMap<PathBuf, BTreeSet<String>>,
    ) -> anyhow::Result<Option<u64>> {
        let destination = self.to.destination.clone();
        let copies = match &mut self.copies {
            Some(copies) => copies,
            none => none.insert(destination.copies().await?),
        };
        let mut copied = None;
        for checkpoint in job.reference.iter().chain([&job.checkpoint]) {
            let name = checkpoint.dir.file_name().unwrap_or_default().to_string_lossy();
            if copies.contains(name.as_ref()) {
                continue;
            }
            let done = done.entry(checkpoint.dir.clone()).or_default();
            copied = Some(copied.unwrap_or(0) + destination.upload(&checkpoint.dir, done).await?);
            copies.insert(name.into_owned());
        }
        destination.move_latest(&destination.latest_of(&job.checkpoint.dir, self.term)?).await?;
        for checkpoint in job.reference.iter().chain([&job.checkpoint]) {
            if !self.history.iter().any(|known| known.dir == checkpoint.dir) {
                self.history.push(checkpoint.clone());
            }
        }
        self.prune(&job.scores).await;
        Ok(copied)
    }

    /// Deletes the copies that the rule does not keep. A failure only costs space, so it is a warning.
    async fn prune(&mut self, scores: &BTreeMap<Step, f64>) {
        let Some(copies) = &mut self.copies else { return };
        let name = |dir: &Path| dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.history.retain(|checkpoint| copies.contains(&name(&checkpoint.dir)));
        for dir in expired(&self.history, &self.spec, &self.to.retention, scores) {
            let name = name(&dir);
            match self.to.destination.delete(&name).await {
                Ok(()) => tracing::info!("deleted the old copy {name}"),
                Err(error) => tracing::warn!("an old copy could not be deleted: {error:#}"),
            }
            // Tried once; what is left has no manifest, or is listed again after a resume.
            copies.remove(&name);
        }
        self.history.retain(|checkpoint| copies.contains(&name(&checkpoint.dir)));
    }
}

/// Returns once the time that the end of the run has set is over.
async fn stopped(stop_by: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let by = *stop_by.borrow_and_update();
        match by {
            Some(by) => return sleep_until(by).await,
            // Without anybody left to set one there is none.
            None => {
                if stop_by.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
