//! The thread that owns the connections, and how blocking callers use it.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{Condvar, Mutex, mpsc as reply},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, sync::mpsc, task::LocalSet};

use super::{cluster::Cluster, connect::Access};
use crate::{Settings, StoreError};

/// Calls at one time. More wait for their turn, within their patience.
const CALLS: usize = 64;
/// What a caller waits beyond its patience: the thread answers by then, with a better reason.
const GRACE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(Rc<Cluster>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Carries blocking calls to the thread and their answers back.
pub(super) struct Courier {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    calls: Gate,
    place: String,
}

impl Courier {
    /// Starts the thread. Nothing is connected before the first call.
    pub fn start(settings: &Settings) -> Result<Self, StoreError> {
        let access = Access::read(settings)?;
        let open = |error: std::io::Error| StoreError::Backend {
            action: "open",
            error: error.to_string(),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(open)?;
        let (jobs, mut todo) = mpsc::channel::<Job>(CALLS);
        let work = move || {
            let cluster = Rc::new(Cluster::new(access));
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                // Each call is a task of its own; the gate bounds how many there are.
                while let Some(job) = todo.recv().await {
                    tokio::task::spawn_local(job(cluster.clone()));
                }
            });
        };
        let thread = thread::Builder::new().name("store".into()).spawn(work).map_err(open)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            calls: Gate::default(),
            place: settings.endpoints.join(", "),
        })
    }

    /// Has the thread do `work`, which ends by the instant that it is given, and waits for its answer.
    pub fn run<T, F>(
        &self,
        patience: Duration,
        work: impl FnOnce(Rc<Cluster>, Instant) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let until = Instant::now() + patience;
        let silent = |error: &str| StoreError::Unavailable {
            place: self.place.clone(),
            after: patience,
            error: error.to_owned(),
        };
        let _pass = self.calls.enter(until).ok_or_else(|| silent("too many calls at one time"))?;
        let (answer, answered) = reply::sync_channel(1);
        let job: Job = Box::new(move |cluster| {
            Box::pin(async move {
                // A caller that has left wants no answer.
                let _ = answer.send(work(cluster, until).await);
            })
        });
        let jobs = self.jobs.as_ref().expect("it is taken only by drop");
        jobs.try_send(job).map_err(|_| silent("its thread is gone or overloaded"))?;
        let wait = until.saturating_duration_since(Instant::now()) + GRACE;
        answered.recv_timeout(wait).unwrap_or_else(|_| Err(silent("its thread did not answer")))
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // Without a sender the thread ends; what it still does for watches ends with it.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Lets [`CALLS`] callers in at one time.
#[derive(Default)]
struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    /// Waits for a place until `until`.
    fn enter(&self, until: Instant) -> Option<Pass<'_>> {
        let inside = self.inside.lock().expect("no holder of the gate panics");
        let wait = until.saturating_duration_since(Instant::now());
        let (mut inside, timed) = self
            .left
            .wait_timeout_while(inside, wait, |inside| *inside >= CALLS)
            .expect("no holder of the gate panics");
        if timed.timed_out() && *inside >= CALLS {
            return None;
        }
        *inside += 1;
        Some(Pass { gate: self })
    }
}

/// One caller's place; freed when dropped.
struct Pass<'a> {
    gate: &'a Gate,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.gate.inside.lock().expect("no holder of the gate panics") -= 1;
        self.gate.left.notify_one();
    }
}
