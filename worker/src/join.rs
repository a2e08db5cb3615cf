//! `medevo-worker join`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use medevo_rpc::{Locate, Security};
use medevo_types::WorkerId;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
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

/// Exit code after SIGTERM, as shells count it.
const TERMINATED: u8 = 128 + 15;

/// Joins a run and works until it is over, or until SIGTERM.
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
        let stopped = loop {
            tokio::select! {
                outcome = &mut work => {
                    if args.slurm && let Err(AgentError::Unreachable(_)) = &outcome {
                        spawn_blocking(slurm::mind_the_job).await?;
                    }
                    tracing::info!(reason = outcome?, "leaving: the run is over for this worker");
                    return anyhow::Ok(ExitCode::SUCCESS);
                }
                // The run drains, and then lets this worker go.
                _ = terminate.recv() => match args.slurm {
                    true => slurm::pass_on_notice(),
                    false => break "SIGTERM",
                },
                _ = interrupt.recv() => break "SIGINT",
            }
        };
        tracing::info!(signal = stopped, "leaving");
        Ok(ExitCode::from(TERMINATED))
    })?;
    runtime.shutdown_background();
    Ok(code)
}

/// Has this process sent SIGTERM when its parent ends, so that a killed launcher leaves nothing behind.
/// Call it on the main thread. A parent that has ended already is noticed by the join deadline.
#[cfg(target_os = "linux")]
fn die_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("cannot ask for a signal at the parent's death (--die-with-parent)")
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> anyhow::Result<()> {
    anyhow::bail!("--die-with-parent works on Linux only; leave it out")
}
