//! The worker's main loop: ask, do, report.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use medevo_rpc::{Backoff, CallError, Client, ClientSecurity, Credentials, Locate};
use medevo_types::{
    Incarnation, WorkerId, WorkerTag,
    messages::{
        Directive, EngineSetup, Envelope, Hello, JoinRefused, Rejection, Report, Welcome,
        incarnation_at,
    },
};

use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    directive::name,
    engine_thread::EngineThread,
    fault::Fault,
    lease::Lease,
    leaving::{self, Departure},
    port::Build,
    token::Token,
    whereabouts::RunDir,
};

/// Who the worker is and how long it waits for whom.
#[derive(Clone)]
pub struct Plan {
    /// Where the coordinator is.
    pub place: Arc<dyn Locate>,
    /// The run's directory, where that is how the coordinator is found: the lease is kept in its store then.
    pub run_dir: Option<Arc<RunDir>>,
    /// The worker's name.
    pub worker: WorkerId,
    /// The run's join token.
    pub token: Token,
    /// TLS or not.
    pub security: ClientSecurity,
    /// Device, for people ("cpu", "cuda:0").
    pub device: String,
    /// Address at which other workers reach this one.
    pub address: String,
    /// How long to wait for a coordinator that is not up yet.
    pub join_deadline: Duration,
    /// How long to wait for a coordinator that has gone.
    pub leader_grace: Duration,
    /// Touched each time that the worker, once let in, asks for work: what probes look at.
    pub alive: Option<PathBuf>,
    /// Test-only deaths.
    pub fault: Fault,
    /// Becomes true when the worker is to leave on purpose, see [`run`].
    pub leaving: watch::Receiver<bool>,
}

/// Why the worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The coordinator did not let it in.
    #[error("worker {worker} may not join the run at {coordinator}: {reason}{advice}")]
    Refused {
        /// Which worker.
        worker: WorkerId,
        /// Which coordinator.
        coordinator: String,
        /// Why.
        reason: JoinRefused,
        /// What to do about it.
        advice: &'static str,
    },
    /// The coordinator is gone for longer than the grace.
    #[error(transparent)]
    Unreachable(#[from] CallError),
    /// Another process joined under the same name.
    #[error(
        "another process has joined as worker {0}; this one leaves (give every worker a name of its own)"
    )]
    Replaced(WorkerId),
    /// Another run answers at the coordinator's address.
    #[error(
        "run {now} answers at {coordinator} where run {before} did; this worker belongs to {before}"
    )]
    OtherRun {
        /// Which coordinator.
        coordinator: String,
        /// The run that it joined.
        before: String,
        /// The run that is there now.
        now: String,
    },
    /// The engine cannot be set up, or broke.
    #[error("{0:#}")]
    Engine(anyhow::Error),
}

/// Takes part in a run until it is over, or until it is to leave. Returns why it left.
///
/// A worker that is to leave does so between two steps: what others wait for in a collective is done first, and the
/// coordinator is told, so that nobody waits for the lease.
///
/// # Errors
/// See [`AgentError`].
pub async fn run(plan: Plan, build: Build) -> Result<Departure, AgentError> {
    let token = plan.token.reveal().to_owned();
    let credentials = Credentials { token, security: plan.security.clone() };
    let client = Arc::new(Client::finding(plan.place.clone(), credentials.clone()));
    let engine = EngineThread::start(build, Arc::clone(&client), plan.fault.clone())
        .map_err(AgentError::Engine)?;
    let mut tag = later_life(&plan.worker, Incarnation(0));
    let welcome = join(&client, &plan, &tag, plan.join_deadline).await?;
    tracing::info!(worker = %tag.worker, run = welcome.run_id, "joined");
    // Setting the engine up takes its time, so the lease comes first.
    let lease = keep(&plan, credentials, &tag, ttl(&welcome)).await.map_err(AgentError::Engine)?;
    engine.prepare(welcome.engine.clone()).await.map_err(AgentError::Engine)?;

    let (run_id, mut setup) = (welcome.run_id, welcome.engine);
    loop {
        match serve(&client, &plan, &tag, &engine).await? {
            Leave::Over(departure) => return Ok(departure),
            Leave::Unknown => {}
        }
        tag = later_life(&plan.worker, tag.incarnation);
        let welcome = match join(&client, &plan, &tag, plan.leader_grace).await {
            Err(AgentError::Refused { reason: JoinRefused::Over, .. }) => {
                return Ok(Departure::for_good(JoinRefused::Over.to_string()));
            }
            other => other?,
        };
        if welcome.run_id != run_id {
            let (before, now) = (run_id, welcome.run_id);
            let coordinator = client.address();
            return Err(AgentError::OtherRun { coordinator, before, now });
        }
        tracing::info!(worker = %tag.worker, "joined again, in a new life");
        lease.renew_as(tag.clone(), ttl(&welcome));
        engine.new_life().map_err(AgentError::Engine)?;
        // The same setup keeps the weights: nothing has to be restored from disk.
        set_up_again(&engine, &mut setup, welcome.engine).await?;
    }
}

/// Keeps the lease in the run's store if it has one that workers reach, else at the coordinator.
async fn keep(
    plan: &Plan,
    credentials: Credentials,
    tag: &WorkerTag,
    ttl: Duration,
) -> anyhow::Result<Lease> {
    let store = match plan.run_dir.clone() {
        Some(run_dir) => spawn_blocking(move || run_dir.store()).await??,
        None => None,
    };
    match store {
        Some(store) => Lease::in_store(store, tag.clone(), ttl),
        None => Lease::keep(plan.place.clone(), credentials, tag.clone(), ttl),
    }
}

async fn set_up_again(
    engine: &EngineThread,
    held: &mut EngineSetup,
    new: EngineSetup,
) -> Result<(), AgentError> {
    if *held == new {
        return Ok(());
    }
    tracing::info!("the run's engine settings have changed: setting up again");
    engine.prepare(new.clone()).await.map_err(AgentError::Engine)?;
    *held = new;
    Ok(())
}

/// How a membership ends.
enum Leave {
    /// The run is over for this worker, or it leaves on purpose.
    Over(Departure),
    /// The coordinator does not know it (any more): join again.
    Unknown,
}

/// Asks, does and reports for as long as the worker is a member.
async fn serve(
    client: &Client,
    plan: &Plan,
    tag: &WorkerTag,
    engine: &EngineThread,
) -> Result<Leave, AgentError> {
    let (mut pace, mut leave) = (Pace::default(), plan.leaving.clone());
    // A vote was given: the step waits for this worker.
    let mut engaged = false;
    loop {
        pace.asking();
        touch(plan.alive.as_deref());
        let answer = tokio::select! {
            biased;
            () = leaving::asked(&mut leave), if !engaged => return Ok(Leave::Over(leaving::farewell(client, tag).await)),
            answer = client.next(tag, plan.leader_grace) => answer?,
        };
        // Whoever has voted stays until the others have, too, or the vote is void.
        let voting = engaged && matches!(answer, Ok(Directive::Wait { .. }));
        if *leave.borrow() && !voting && !answer.as_ref().is_ok_and(leaving::awaited) {
            return Ok(Leave::Over(leaving::farewell(client, tag).await));
        }
        let directive = match answer {
            Ok(Directive::Stop { reason, drained }) => {
                return Ok(Leave::Over(Departure { reason, drained }));
            }
            Ok(Directive::Wait { reason }) => {
                tracing::debug!(reason, "waiting");
                pace.slow_down().await;
                continue;
            }
            Ok(directive) => directive,
            Err(Rejection::NotLeader) => {
                client.forget().await;
                pace.slow_down().await;
                continue;
            }
            Err(rejection) => match turned_away(tag, "next", rejection)? {
                Some(leave) => return Ok(leave),
                None => {
                    pace.slow_down().await;
                    continue;
                }
            },
        };
        let what = name(&directive);
        engaged = matches!(directive, Directive::Update(_));
        tracing::debug!(directive = what, "begun");
        let done = engine.carry_out(tag.clone(), directive).await.map_err(AgentError::Engine)?;
        log_failure(&done.envelope);
        let answer = report(client, plan, done.envelope).await?;
        if let Some(broken) = done.broken {
            return Err(AgentError::Engine(anyhow::anyhow!(
                "{broken}; this worker leaves, because its weights may be half-changed"
            )));
        }
        if let Err(rejection) = answer {
            if let Some(leave) = turned_away(tag, what, rejection)? {
                return Ok(leave);
            }
            if rejection == Rejection::NotLeader {
                client.forget().await;
            }
            // The same directive comes again until its report is taken.
            pace.slow_down().await;
        }
    }
}

fn touch(alive: Option<&Path>) {
    if let Some(path) = alive
        && let Err(error) = std::fs::write(path, b"")
    {
        tracing::warn!(%error, "{} cannot be written", path.display());
    }
}

/// Keeps a coordinator that answers at once, but gives no work, from being asked without pause. Long
/// polls take their time at the coordinator and are not slowed down.
struct Pace {
    asked: Instant,
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        Self { asked: Instant::now(), backoff }
    }
}

impl Pace {
    fn asking(&mut self) {
        self.asked = Instant::now();
    }

    async fn slow_down(&mut self) {
        if self.asked.elapsed() < Duration::from_millis(200) {
            tokio::time::sleep(self.backoff.pause()).await;
        } else {
            *self = Self::default();
        }
    }
}

/// Sends a report; one that is too large to send is replaced by a report of that.
async fn report(
    client: &Client,
    plan: &Plan,
    mut envelope: Envelope,
) -> Result<Result<(), Rejection>, AgentError> {
    match client.report(&envelope, plan.leader_grace).await {
        Err(CallError::Unsendable { reason, .. }) => {
            envelope.body = Report::Failed {
                what: envelope.body.name().to_owned(),
                error: format!(
                    "the report cannot be sent: {reason}; lower prompts_per_unit or sampling.n"
                ),
                retryable: false,
            };
            Ok(client.report(&envelope, plan.leader_grace).await?)
        }
        answer => Ok(answer?),
    }
}

/// What a rejection means for the membership; None when the worker just asks again.
fn turned_away(
    tag: &WorkerTag,
    what: &str,
    rejection: Rejection,
) -> Result<Option<Leave>, AgentError> {
    match rejection {
        Rejection::UnknownWorker => {
            tracing::warn!(worker = %tag.worker, "not a member of the run (any more): joining again");
            Ok(Some(Leave::Unknown))
        }
        Rejection::StaleIncarnation => Err(AgentError::Replaced(tag.worker.clone())),
        Rejection::Duplicate => {
            tracing::debug!(what, "was reported already");
            Ok(None)
        }
        other => {
            tracing::info!(what, rejection = %other, "turned away; asking again");
            Ok(None)
        }
    }
}

fn log_failure(envelope: &Envelope) {
    let (generation, step) = (envelope.generation.0, envelope.step.0);
    match &envelope.body {
        Report::CollectiveFailed { operation, error } => {
            tracing::warn!(generation, step, operation, error, "the collective failed");
        }
        Report::Failed { what, error, retryable } => {
            tracing::warn!(generation, step, what, error, retryable, "a directive failed");
        }
        done => tracing::debug!(generation, step, report = done.name(), "done"),
    }
}

/// Asks to be let in, for as long as nobody answers within `patience`.
async fn join(
    client: &Client,
    plan: &Plan,
    tag: &WorkerTag,
    patience: Duration,
) -> Result<Welcome, AgentError> {
    let hello = Hello {
        tag: tag.clone(),
        device: plan.device.clone(),
        address: plan.address.clone(),
        pid: std::process::id(),
    };
    let start = Instant::now();
    let answer = loop {
        let left = patience.saturating_sub(start.elapsed());
        match client.join(&hello, left).await? {
            Err(JoinRefused::NotLeader) if !left.is_zero() => {
                client.forget().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => break answer,
        }
    };
    answer.map_err(|reason| AgentError::Refused {
        worker: plan.worker.clone(),
        coordinator: client.address(),
        advice: match reason {
            JoinRefused::OldLife(_) => "; give every worker a name of its own",
            JoinRefused::Full | JoinRefused::Over | JoinRefused::NotLeader => "",
        },
        reason,
    })
}

/// A life that is later than `before`, by the clock if that has moved on.
fn later_life(worker: &WorkerId, before: Incarnation) -> WorkerTag {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let incarnation = incarnation_at(now).max(before.next());
    WorkerTag { worker: worker.clone(), incarnation }
}

fn ttl(welcome: &Welcome) -> Duration {
    // A third of it is slept between heartbeats, so it must not be 0.
    Duration::from_millis(welcome.lease_ttl_ms.max(30))
}
