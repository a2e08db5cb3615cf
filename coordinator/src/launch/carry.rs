//! Leading a run: the driver, the door for workers, the workers of this machine, and how it ends.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_common::config::{RunConfig, StageSection, StoreKind, ValidConfig, WorkerDevice};
use medevo_core::api::Outcome;
use medevo_rpc::{Door, Limits};
use medevo_types::{WorkerId, messages::EngineSetup};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use super::{
    Allocation, Children, Exit, Signals, WorkerCommand,
    alive::Alive,
    attend::{AT_ONCE, attend},
    entrance::Entrance,
    roll::Roll,
};
use crate::{
    copies::{Destination, mend},
    driver::{
        Chronicle, CopyTo, Driver, Handle, Identity, Parts, Plan, Retention, Scores, millis, tidy,
    },
    leadership::Lead,
    logging, metrics, report,
    rpc::{Keeper, Refusals, Service},
    run_dir::RunDir,
    say::{complain, say},
    store::recover_with,
};

/// How long workers that were started elsewhere may take to ask for work, and hear that there is none left.
const DISMISS: Duration = Duration::from_secs(15);
/// How long the driver has to leave its loop.
const LEAVE: Duration = Duration::from_secs(60);

/// The workers of this machine.
pub(super) struct Local {
    pub(super) workers: usize,
    pub(super) binary: Option<PathBuf>,
}

/// A run that this coordinator leads.
pub(super) struct Task {
    pub(super) config: ValidConfig,
    pub(super) plan: Plan,
    pub(super) run_dir: RunDir,
    pub(super) lead: Lead,
    pub(super) local: Local,
    pub(super) entrance: Entrance,
    /// Where checkpoints are copied to.
    pub(super) copies: Option<Destination>,
}

/// Leads the run until it ends, or until another coordinator does.
///
/// # Errors
/// What broke.
pub(super) async fn carry(task: Task, mut signals: Signals) -> anyhow::Result<Exit> {
    let Task { config, mut plan, run_dir, lead, local, entrance, copies } = task;
    signals.heed(&run_dir)?;
    logging::also_into(&run_dir.coordinator_log());
    // The directory's own words for itself: without symbolic links on the way.
    plan.spec.checkpoints = run_dir.checkpoints();
    // Whoever comes from elsewhere may join later.
    if local.workers > 0 {
        plan.spec.expected_workers = local.workers;
    }
    let copying = Duration::from_secs_f64(config.checkpoint.timeout_s);
    let until = Instant::now() + copying;
    // Checkpoints are read whole, and maybe fetched: that takes its time.
    let starting = Alive::from_env().keep();
    let recovery = recover_with(&lead, &plan.spec.checkpoints, &|checkpoint| {
        let from = copies.as_ref()?;
        let left = until.saturating_duration_since(Instant::now());
        Some(mend(from, checkpoint, left).map_err(|error| format!("{error:#}")))
    })?;
    drop(starting);
    let members = (config.store.kind == StoreKind::Etcd).then(|| lead.store().clone());
    let identity = Identity {
        run_id: config.run.name.clone(),
        seed: config.run.seed,
        config: run_dir.config_digest()?,
        run_dir: run_dir.path().to_owned(),
    };
    let scores = Scores::read(&config.checkpoint, &run_dir)?;
    let mut chronicle = Chronicle::open(&run_dir)?;
    if let Some(allocation) = Allocation::here() {
        chronicle.news(&allocation.event())?;
    }
    let retention = Retention::of(&config.checkpoint);
    let copies = copies.map(|destination| CopyTo {
        destination,
        retention: Retention::of_copies(&config.checkpoint),
        timeout: copying,
    });
    let parts = Parts { plan, lead, recovery, chronicle, identity, retention, scores, copies };
    let (driver, task) = Driver::start(parts)?;

    let address = entrance.address(&config)?;
    if local.workers == 0
        && config.cluster.advertise.is_none()
        && entrance.listener.local_addr().is_ok_and(|at| at.ip().is_unspecified())
    {
        complain(format!(
            "workers are told {address}, where only those of this machine get through; set cluster.advertise (or \
             --advertise) to this machine's name or address for others"
        ));
    }
    let Entrance { listener, security, token } = entrance;
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

    let metrics = match &config.cluster.metrics {
        Some(address) => measured(address, &driver).await,
        None => None,
    };
    let roll = members.map(|store| Roll::follow(store, driver.clone())).transpose()?;

    let mut children = Children::default();
    if let Some(binary) = local.binary {
        for index in 0..local.workers {
            let worker = WorkerId(format!("w{index}"));
            let mut arguments: Vec<OsString> = [
                "join",
                "--coordinator",
                &address,
                "--worker-id",
                &worker.0,
                "--address",
                &config.cluster.collective_address,
                "--device",
                &device(config.cluster.device, index),
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

    let outcome = attend(&driver, &mut children, &mut signals, local.workers > 0).await;
    // Asked twice: the workers get no time to finish what they do.
    let at_once = matches!(outcome, Outcome::Stopped { .. });

    let _parting = Alive::from_env().keep();
    // The workers are told to stop by the driver; the processes are then waited for, and reaped.
    let hurried = at_once
        || tokio::select! {
            () = part(&driver, &mut children, &config) => false,
            () = signals.hurry() => true,
        };
    if hurried {
        children.hurry(&mut Vec::new()).await;
    }
    if !at_once && !driver.deposed() {
        settle(&driver, copying, &mut signals).await;
    }
    driver.shutdown().await;
    let leave = if at_once { AT_ONCE } else { LEAVE };
    match timeout(leave, task).await {
        Ok(joined) => joined.context("the driver broke off")?,
        Err(_) => tracing::error!("the driver did not leave within {} s", leave.as_secs()),
    }
    drop(roll);
    server.abort();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    if driver.deposed() {
        complain(
            "another coordinator has taken this run over and leads it now; this one leaves, and has left the run \
             alone",
        );
        return Ok(Exit::Deposed);
    }
    tidy(&run_dir.checkpoints());
    conclude(&config, &run_dir, &outcome)
}

/// Serves the figures. The run does not depend on them: a port that a dying coordinator still has must not keep a
/// standby from taking over.
async fn measured(address: &str, driver: &Handle) -> Option<JoinHandle<()>> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        Ok::<_, std::io::Error>((listener.local_addr()?, listener))
    };
    match bound.await {
        Ok((address, listener)) => {
            say(format!("metrics at http://{address}{}", metrics::PATH));
            Some(metrics::serve(listener, driver.status()))
        }
        Err(error) => {
            complain(format!(
                "no metrics: cannot listen on {address} ({error}); see cluster.metrics"
            ));
            None
        }
    }
}

/// Waits for the last copy, not longer than for any other, nor past a signal.
async fn settle(driver: &Handle, limit: Duration, signals: &mut Signals) {
    let Some(copying) = driver.copying() else { return };
    let Some(what) = copying.now() else { return };
    say(format!("waiting for the copy of {what}, up to {} s (Ctrl-C: not)", limit.as_secs()));
    tokio::select! {
        () = copying.settle(limit) => {}
        () = signals.hurry() => copying.settle(Duration::ZERO).await,
    }
}

/// Waits for the workers to leave: those of this machine by their processes, those from elsewhere until they
/// know that the run is over. Where another coordinator leads now, they are its own.
async fn part(driver: &Handle, children: &mut Children, config: &ValidConfig) {
    children.stop().await;
    if driver.deposed() {
        return;
    }
    let lease = Duration::from_secs_f64(config.cluster.lease_ttl_s);
    let untold = driver.dismiss(lease, DISMISS).await;
    if !untold.is_empty() {
        let names: Vec<&str> = untold.iter().map(|worker| worker.0.as_str()).collect();
        tracing::warn!(
            "not told that the run is over: {}; they leave by themselves",
            names.join(", ")
        );
    }
}

/// What the worker with this number computes on, for its command line.
fn device(device: WorkerDevice, number: usize) -> String {
    match device {
        WorkerDevice::Cpu => "cpu".to_owned(),
        WorkerDevice::Cuda => format!("cuda:{number}"),
    }
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
            let place = run_dir.path().display();
            let way = match Allocation::here() {
                Some(_) => format!("medevo-coord launch {place} --on slurm"),
                None => format!("medevo-coord resume {place}"),
            };
            say(format!("drained ({reason}); go on with `{way}`"));
            Exit::Drained
        }
        Outcome::Stopped { reason } => {
            let place = run_dir.path().display();
            say(format!(
                "stopped at once ({reason}); go on from the last checkpoint with `medevo-coord resume {place}`"
            ));
            Exit::Stopped
        }
        Outcome::Failed { reason } => {
            complain(format!("the run failed: {reason}"));
            Exit::Failed
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers on one GPU could not form a communicator.
    #[test]
    fn each_worker_has_a_gpu_of_its_own() {
        let names = |of| [0, 1, 2].map(|number| device(of, number));
        assert_eq!(names(WorkerDevice::Cuda), ["cuda:0", "cuda:1", "cuda:2"]);
        assert_eq!(names(WorkerDevice::Cpu), ["cpu"; 3]);
    }
}
