//! `launch` and `resume`: from a run file or a run directory to a run that has ended.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use medevo_common::config::{RunConfig, StageSection, ValidConfig};
use medevo_core::api::Outcome;
use medevo_rpc::{Door, Limits, Security, ServerSecurity};
use medevo_types::{WorkerId, messages::EngineSetup};
use tokio::{net::TcpListener, time::timeout};

use super::{Children, Exit, Signals, WorkerCommand, attend::attend, describe, find_worker_binary};
use crate::{
    driver::{Chronicle, Driver, Identity, Parts, Plan, millis},
    preflight::{self, Refused},
    report,
    rpc::{Keeper, Refusals, Service, Token},
    run_dir::RunDir,
    say::{complain, say},
    store::{Embedded, outcome, recover},
};

/// How long the driver has to leave its loop.
const LEAVE: Duration = Duration::from_secs(60);

/// What `launch` was asked for.
#[derive(Clone, Debug)]
pub struct Run {
    /// The run file.
    pub file: PathBuf,
    /// Overrides, `key=value`.
    pub set: Vec<String>,
    /// Workers on this machine; `None`: as the run file says.
    pub workers: Option<usize>,
    /// Run directory; `None`: as the run file says, else `runs/<name>`.
    pub run_dir: Option<PathBuf>,
    /// Where the join token is; `None`: in the environment, else a new one.
    pub token_file: Option<PathBuf>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Start even if the workers need more memory than they have.
    pub ignore_memory: bool,
}

/// How far to go, and past what.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Where the join token is; `None`: in the environment, else a new one.
    pub token_file: Option<PathBuf>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Start even if the workers need more memory than they have.
    pub ignore_memory: bool,
}

/// Starts a run and stays until it ends.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable: then nothing was made or started.
/// Otherwise what broke.
pub async fn launch(run: Run) -> anyhow::Result<Exit> {
    let config = RunConfig::load(&run.file, &run.set).map_err(Refused::because)?;
    let how = Start {
        token_file: run.token_file,
        dry_run: run.dry_run,
        ignore_memory: run.ignore_memory,
    };
    start(config, run.workers, run.run_dir, how).await
}

/// Starts a run whose configuration is at hand.
///
/// # Errors
/// As [`launch`].
pub async fn start(
    mut config: RunConfig,
    workers: Option<usize>,
    run_dir: Option<PathBuf>,
    how: Start,
) -> anyhow::Result<Exit> {
    let local = take_workers(&mut config, workers);
    let config = config.validate().map_err(Refused::because)?;
    let place = run_dir
        .or_else(|| config.run.dir.clone())
        .unwrap_or_else(|| Path::new("runs").join(&config.run.name));
    let place = std::path::absolute(&place).map_err(Refused::because)?;
    let plan = preflight::check(&config, &place, (!how.ignore_memory).then_some(local))?;
    let security = security(&config)?;
    if how.dry_run {
        say(describe(&config, &plan, &place, local));
        return Ok(Exit::Done);
    }
    let binary = worker_binary(local)?;
    let entrance = Entrance::open(&config, security, how.token_file.as_deref()).await?;
    let run_dir = RunDir::create(&place, &config).map_err(Refused::because)?;
    let store = Embedded::open(run_dir.path()).map_err(Refused::because)?;
    carry(config, plan, run_dir, store, Local { workers: local, binary }, entrance).await
}

/// Goes on with the run in `run_dir` from its last good checkpoint.
///
/// # Errors
/// As [`launch`].
pub async fn resume(
    run_dir: &Path,
    workers: Option<usize>,
    token_file: Option<&Path>,
) -> anyhow::Result<Exit> {
    let place = std::path::absolute(run_dir).map_err(Refused::because)?;
    let run_dir = RunDir::open(&place).map_err(Refused::because)?;
    let store = Embedded::open(run_dir.path()).map_err(Refused::because)?;
    // Before anything is checked: a run that is done needs neither its model nor its data any more.
    if let Some(Outcome::Done) = outcome(&store)? {
        let shown = run_dir.path().display();
        say(format!("The run in {shown} is done already; nothing was started."));
        return Ok(Exit::Done);
    }
    let mut config = run_dir.config().map_err(Refused::because)?;
    let local = take_workers(&mut config, workers);
    let config = config.validate().map_err(Refused::because)?;
    // It has been started once: whether it fits, its workers will have shown.
    let plan = preflight::check(&config, &place, None)?;
    let binary = worker_binary(local)?;
    let entrance = Entrance::open(&config, security(&config)?, token_file).await?;
    run_dir.make_folders()?;
    carry(config, plan, run_dir, store, Local { workers: local, binary }, entrance).await
}

/// The workers of this machine.
struct Local {
    workers: usize,
    binary: Option<PathBuf>,
}

/// How many workers this machine starts. What was typed overrides the run file and is validated with it;
/// 0 waits for workers from elsewhere, as many as the run file says.
fn take_workers(config: &mut RunConfig, typed: Option<usize>) -> usize {
    if let Some(workers) = typed.filter(|workers| *workers > 0) {
        config.cluster.workers = workers;
    }
    typed.unwrap_or(config.cluster.workers)
}

fn worker_binary(workers: usize) -> anyhow::Result<Option<PathBuf>> {
    match workers {
        0 => Ok(None),
        _ => Ok(Some(find_worker_binary().map_err(Refused::because)?)),
    }
}

fn security(config: &ValidConfig) -> anyhow::Result<ServerSecurity> {
    Security::of_coordinator(config.cluster.certificates.as_deref()).map_err(Refused::because)
}

/// Where workers come in, and what they must show.
struct Entrance {
    listener: TcpListener,
    security: ServerSecurity,
    token: Token,
}

impl Entrance {
    async fn open(
        config: &ValidConfig,
        security: ServerSecurity,
        token_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let token = Token::find(token_file).map_err(Refused::because)?;
        Ok(Self { listener: listen(config).await?, security, token })
    }
}

async fn listen(config: &ValidConfig) -> anyhow::Result<TcpListener> {
    let address = &config.cluster.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Refused::because(anyhow::anyhow!(
            "cannot listen on {address} ({error}); choose another address with `cluster.listen`, for \
             example --set cluster.listen=127.0.0.1:0 for any free port"
        ))
    })?;
    Ok(listener)
}

async fn carry(
    config: ValidConfig,
    mut plan: Plan,
    run_dir: RunDir,
    store: Embedded,
    local: Local,
    entrance: Entrance,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    // The directory's own words for itself: without symbolic links on the way.
    plan.spec.checkpoints = run_dir.checkpoints();
    let recovery = recover(Arc::new(store), &plan.spec.checkpoints)?;
    let identity = Identity {
        run_id: config.run.name.clone(),
        seed: config.run.seed,
        config: run_dir.config_digest()?,
        run_dir: run_dir.path().to_owned(),
    };
    let keep = config.checkpoint.keep;
    let chronicle = Chronicle::open(&run_dir)?;
    let parts = Parts { plan, recovery, chronicle, identity, keep };
    let (driver, task) = Driver::start(parts)?;

    let Entrance { listener, security, token } = entrance;
    let address = listener.local_addr().context("reading the listen address")?;
    let refusals = Refusals::new(driver.clone());
    let door = Door::new(security, Arc::new(Keeper::new(token.clone(), refusals.clone())));
    let service = Service::new(
        driver.clone(),
        refusals,
        config.run.name.clone(),
        millis(config.cluster.lease_ttl_s),
        engine_setup(&config),
    );
    // Two connections a worker, and as many again while old ones die.
    let connections = Limits::default().connections.max(4 * config.cluster.max_workers);
    let limits = Limits { connections, ..Limits::default() };
    let server = tokio::spawn(medevo_rpc::serve_within(listener, service, door, limits));

    let mut children = Children::default();
    if let Some(binary) = local.binary {
        // Workers on this machine reach an unspecified address (0.0.0.0) by loopback.
        let port = address.port();
        let target = if address.ip().is_unspecified() {
            "127.0.0.1".into()
        } else {
            address.ip().to_string()
        };
        for index in 0..local.workers {
            let worker = WorkerId(format!("w{index}"));
            let mut arguments: Vec<OsString> = [
                "join",
                "--coordinator",
                &format!("{target}:{port}"),
                "--worker-id",
                &worker.0,
                "--address",
                &config.cluster.collective_address,
                "--die-with-parent",
            ]
            .map(Into::into)
            .to_vec();
            if let Some(directory) = &config.cluster.certificates {
                arguments.extend(["--certificates".into(), directory.into()]);
            }
            let command = WorkerCommand {
                binary: binary.clone(),
                arguments,
                token: token.reveal().to_owned(),
            };
            let log = run_dir.worker_log(&worker.0);
            children.start(worker, &command, &log)?;
        }
    }
    say(format!("run {} in {}, listening on {address}", config.run.name, run_dir.path().display()));

    let over = attend(&driver, &mut children, &mut signals, local.workers > 0).await;

    // The workers are told to stop by the driver; the processes are then waited for, and reaped.
    if over.at_once {
        children.hurry(&mut Vec::new()).await;
    }
    tokio::select! {
        _ = children.stop() => {}
        _ = signals.next() => children.hurry(&mut Vec::new()).await,
    }
    driver.shutdown().await;
    match timeout(LEAVE, task).await {
        Ok(joined) => joined.context("the driver broke off")?,
        Err(_) => tracing::error!("the driver did not leave within {} s", LEAVE.as_secs()),
    }
    server.abort();
    conclude(&config, &run_dir, &over.outcome)
}

/// How the engine of every worker is set up. Threads are shared evenly among this machine's workers.
fn engine_setup(config: &ValidConfig) -> EngineSetup {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match config.engine.threads {
        0 => (cores / config.cluster.workers.max(1)).max(1),
        threads => threads,
    };
    EngineSetup {
        model: config.model.path.clone(),
        dtype: config.model.dtype,
        seed: config.run.seed,
        threads,
        max_prompt_tokens: config.engine.max_prompt_tokens,
        tokens_per_batch: config.engine.tokens_per_batch,
        collective_timeout_ms: millis(config.cluster.collective_timeout_s),
        freeze_vision: config.model.freeze_vision,
        train: config.train.clone(),
        lora: config.lora.clone(),
    }
}

fn trains(config: &RunConfig) -> bool {
    config.stage.iter().any(|stage| !matches!(stage, StageSection::Evaluate(_)))
}

fn conclude(config: &RunConfig, run_dir: &RunDir, outcome: &Outcome) -> anyhow::Result<Exit> {
    match report::write(run_dir.path()) {
        Ok(page) => say(format!("report: {}", page.display())),
        Err(error) => tracing::warn!("the report could not be written: {error:#}"),
    }
    Ok(match outcome {
        // Without training there is nothing to compare.
        Outcome::Done if !trains(config) => Exit::Done,
        Outcome::Done => {
            match crate::compare::table(&[run_dir.path()]) {
                Ok(table) => say(table.trim_end()),
                Err(error) => tracing::warn!("the final table could not be made: {error:#}"),
            }
            Exit::Done
        }
        Outcome::Drained { reason } => {
            say(format!(
                "drained ({reason}); go on with `medevo-coord resume {}`",
                run_dir.path().display()
            ));
            Exit::Drained
        }
        Outcome::Failed { reason } => {
            complain(format!("the run failed: {reason}"));
            Exit::Failed
        }
    })
}
