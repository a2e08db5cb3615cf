//! The thread that owns every tensor.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow};
use medevo_rpc::Client;
use medevo_types::{
    WorkerTag,
    messages::{Directive, EngineSetup, Envelope, Report},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    directive::{Place, name},
    executor::Executor,
    fault::Fault,
    port::Build,
};

/// What came of a directive.
pub(crate) struct Done {
    /// For the coordinator.
    pub envelope: Envelope,
    /// Set when the engine cannot be trusted any more: report, then leave.
    pub broken: Option<String>,
}

enum Job {
    Prepare(Box<EngineSetup>, oneshot::Sender<anyhow::Result<()>>),
    CarryOut(WorkerTag, Box<Directive>, oneshot::Sender<Done>),
    /// A later life in the same process: faults belong to the first.
    NewLife,
}

/// How long the end of the process waits for the engine to let its tensors and connections go.
const FAREWELL: Duration = Duration::from_secs(1);

/// A handle on the engine thread. Dropping it ends the thread once its current job is done.
pub(crate) struct EngineThread {
    jobs: Option<SyncSender<Job>>,
    /// Closed by the thread's end.
    alive: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    /// Starts the thread; it holds no engine before [`prepare`](Self::prepare).
    pub(crate) fn start(build: Build, client: Arc<Client>, fault: Fault) -> anyhow::Result<Self> {
        // The agent waits for every answer, so one place is all that is ever taken, and a new life's
        // note fits in the second.
        let (jobs, queue) = sync_channel(2);
        let (end, alive) = sync_channel(0);
        let runtime = Handle::current();
        let thread = Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let _closed_at_the_end = end;
                work(build, &queue, &runtime, &client, fault);
            })
            .context("cannot start the engine thread")?;
        Ok(Self { jobs: Some(jobs), alive, thread: Some(thread) })
    }

    /// Sets an engine up, in place of the one that there was.
    pub(crate) async fn prepare(&self, setup: EngineSetup) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Prepare(Box::new(setup), done))?;
        answer.await.map_err(|_| gone())?
    }

    /// Has a directive carried out.
    pub(crate) async fn carry_out(
        &self,
        from: WorkerTag,
        directive: Directive,
    ) -> anyhow::Result<Done> {
        let (done, answer) = oneshot::channel();
        self.send(Job::CarryOut(from, Box::new(directive), done))?;
        answer.await.map_err(|_| gone())
    }

    /// Notes that the worker has joined again.
    pub(crate) fn new_life(&self) -> anyhow::Result<()> {
        self.send(Job::NewLife)
    }

    fn send(&self, job: Job) -> anyhow::Result<()> {
        let jobs = self.jobs.as_ref().expect("only drop takes the queue away");
        jobs.try_send(job).map_err(|_| gone())
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.jobs = None;
        // An idle thread ends at once. One that is deep in a computation is left behind: the process
        // is about to end.
        if self.alive.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn gone() -> anyhow::Error {
    anyhow!("the engine thread is gone; its last words are above")
}

fn work(
    mut build: Build,
    queue: &Receiver<Job>,
    runtime: &Handle,
    client: &Arc<Client>,
    mut fault: Fault,
) {
    let mut executor: Option<Executor> = None;
    while let Ok(job) = queue.recv() {
        match job {
            Job::Prepare(setup, done) => {
                executor = None;
                let timeout = Duration::from_millis(setup.collective_timeout_ms);
                let built = catch_unwind(AssertUnwindSafe(|| build(&setup)))
                    .unwrap_or_else(|panic| Err(anyhow!("{}", words(panic.as_ref()))))
                    .context("cannot set the engine up");
                let answer = built.map(|engine| {
                    executor = Some(Executor::new(
                        engine,
                        timeout,
                        runtime.clone(),
                        Arc::clone(client),
                        fault.clone(),
                    ));
                });
                let _ = done.send(answer);
            }
            Job::CarryOut(from, directive, done) => {
                let outcome = match executor.as_mut() {
                    Some(executor) => carry_out(executor, &from, &directive),
                    None => broken(&from, &directive, Place::of(&directive, Default::default()), {
                        "no engine is set up".to_owned()
                    }),
                };
                if outcome.broken.is_some() {
                    // Whatever it holds may be half-changed.
                    executor = None;
                }
                let _ = done.send(outcome);
            }
            Job::NewLife => {
                fault = Fault::none();
                if let Some(executor) = &mut executor {
                    executor.fault = Fault::none();
                }
            }
        }
    }
}

fn carry_out(executor: &mut Executor, from: &WorkerTag, directive: &Directive) -> Done {
    let place = Place::of(directive, executor.generation());
    match catch_unwind(AssertUnwindSafe(|| executor.carry_out(from, directive))) {
        Ok(envelope) => Done { envelope, broken: None },
        Err(panic) => broken(from, directive, place, words(panic.as_ref())),
    }
}

fn broken(from: &WorkerTag, directive: &Directive, place: Place, error: String) -> Done {
    let what = name(directive).to_owned();
    let envelope = place.envelope(
        from.clone(),
        Report::Failed { what: what.clone(), error: error.clone(), retryable: true },
    );
    Done { envelope, broken: Some(format!("{what}: {error}")) }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    // libtorch appends a C++ backtrace, which the log has already.
    let first = text.lines().next().unwrap_or_default();
    format!("the engine panicked: {first}")
}
