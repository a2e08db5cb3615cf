//! `medevo-worker join`.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use medevo_rpc::{Locate, Security};
use medevo_types::WorkerId;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::Instant,
};

use crate::{
    agent::{self, AgentError, Plan},
    cli::JoinArgs,
    device,
    fault::Fault,
    port, slurm,
    token::{TOKEN_FILE, Token},
    whereabouts::RunDir,
};

/// Environment variable that names [`Plan::alive`].
const ALIVE_VARIABLE: &str = "MEDEVO_ALIVE";
/// Exit code of a worker that was told to leave, as shells count SIGTERM: whoever runs it may want another.
const TERMINATED: u8 = 128 + 15;
/// Exit code when the run was drained: who goes on with it needs this worker again.
const RUN_DRAINED: u8 = 3;

/// Joins a run and works until it is over, or until SIGTERM or SIGINT has it leave after the current step.
///
/// # Errors
/// The worker was not let in, lost its coordinator, or its engine broke.
pub fn join(args: JoinArgs) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        die_with_parent()?;
    }
    let in_run_dir = args.run_dir.as_ref().map(|dir| dir.join(TOKEN_FILE));
    let token_file = args.token_file.or(in_run_dir.filter(|_| !Token::is_set()));
    let run_dir = args.run_dir.map(|dir| Arc::new(RunDir::new(dir)));
    let place: Arc<dyn Locate> = match (&run_dir, args.coordinator) {
        (Some(run_dir), _) => run_dir.clone(),
        (None, Some(address)) => Arc::new(address),
        (None, None) => anyhow::bail!("give --coordinator HOST:PORT or --run-dir DIR"),
    };
    let leaving = watch::Sender::new(false);
    let worker = args.worker_id.context("give --worker-id NAME")?;
    let plan = Plan {
        security: Security::of_worker(args.certificates.as_deref())?,
        token: Token::awaited(token_file.as_deref(), Duration::from_secs(args.join_deadline))?,
        fault: Fault::from_env(&worker)?,
        place,
        run_dir,
        worker: WorkerId(worker),
        device: device::name(args.device),
        address: args.address,
        join_deadline: Duration::from_secs(args.join_deadline),
        leader_grace: Duration::from_secs(args.leader_grace),
        alive: std::env::var_os(ALIVE_VARIABLE).map(PathBuf::from),
        leaving: leaving.subscribe(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Control messages only: the engine has a thread of its own.
        .worker_threads(2)
        .thread_name("agent")
        .enable_all()
        .build()
        .context("cannot make the agent's runtime")?;
    let code = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let work = agent::run(plan, port::on_device(args.device));
        tokio::pin!(work);
        let mut until = None;
        loop {
            let signal = tokio::select! {
                outcome = &mut work => {
                    if args.slurm && let Err(AgentError::Unreachable(_)) = &outcome {
                        tokio::select! {
                            minded = spawn_blocking(slurm::mind_the_job) => minded?,
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                    }
                    let departure = outcome?;
                    tracing::info!(reason = departure.reason, "leaving");
                    return anyhow::Ok(match until {
                        Some(_) => TERMINATED.into(),
                        None if departure.drained && !args.slurm => RUN_DRAINED.into(),
                        None => ExitCode::SUCCESS,
                    });
                }
                _ = terminate.recv() => match args.slurm {
                    // The run drains, and then lets this worker go.
                    true => {
                        slurm::pass_on_notice();
                        continue;
                    }
                    false => "SIGTERM",
                },
                _ = interrupt.recv() => "SIGINT",
                () = sleep_until(until) => "the end of --leave-grace",
            };
            // Whoever started it stops it by the coordinator's word: a signal means that there is no more time.
            if args.die_with_parent || until.is_some() {
                tracing::info!(signal, "leaving at once");
                return Ok(ExitCode::from(TERMINATED));
            }
            tracing::info!(signal, "leaving after this step (again: at once)");
            until = Some(Instant::now() + Duration::from_secs(args.leave_grace));
            leaving.send_replace(true);
        }
    })?;
    runtime.shutdown_background();
    Ok(code)
}

/// Never, while there is no such moment.
async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Has this process killed when its parent ends, so that a killed launcher leaves nothing behind. SIGKILL, because
/// SIGTERM would wait for ever in a process that is stopped; a worker has nothing to put away. Call it on the main thread.
#[cfg(target_os = "linux")]
fn die_with_parent() -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask for a signal at the parent's death (--die-with-parent)")?;
    // One that ended before that is not noticed by the system: the launcher says who it is.
    let launcher = std::env::var("MEDEVO_LAUNCHER").ok().and_then(|pid| pid.parse::<i32>().ok());
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    anyhow::ensure!(
        launcher.is_none() || launcher == parent,
        "the process that started this worker has ended already"
    );
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> anyhow::Result<()> {
    anyhow::bail!("--die-with-parent works on Linux only; leave it out")
}
