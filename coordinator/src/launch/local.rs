//! A run on this machine, launched or resumed: from a run file or a run directory to a run that has ended.

use std::path::{Path, PathBuf};

use medevo_common::config::{RunConfig, ValidConfig};
use medevo_core::api::Outcome;

use super::{
    Exit, Run, Signals,
    carry::{Local, Task, carry},
    describe,
    entrance::{Entrance, listen, security},
    find_worker_binary, gpus,
    lead::take_lead,
};
use crate::{
    copies::Destination,
    preflight::{self, Refused},
    run_dir::RunDir,
    say::{complain, say},
    store::{self, outcome},
};

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

/// Starts a run on this machine and stays until it ends.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable: then nothing was made or started.
/// Otherwise what broke.
pub(super) async fn here(run: Run) -> anyhow::Result<Exit> {
    let config = RunConfig::load(&run.file, &run.set).map_err(Refused::because)?;
    let how = Start {
        token_file: run.token_file,
        dry_run: run.dry_run,
        ignore_memory: run.ignore_memory,
    };
    let typed = match run.workers {
        None if RunConfig::says(&run.file, &run.set, "cluster.workers")
            .map_err(Refused::because)? =>
        {
            Some(config.cluster.workers)
        }
        typed => typed,
    };
    let workers = gpus::for_workers(config.cluster.device, typed).await?;
    start(config, workers, run.run_dir, how).await
}

/// Starts a run whose configuration is at hand.
///
/// # Errors
/// As [`super::launch`].
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
    let copies = copies(&config)?;
    if how.dry_run {
        say(describe(&config, &plan, &place, local));
        return Ok(Exit::Done);
    }
    if let Some(copies) = &copies {
        copies.probe().await.map_err(Refused::because)?;
        copies.refuse_used().await.map_err(Refused::because)?;
    }
    let binary = worker_binary(local)?;
    let listener = listen(&config).await?;
    // From here on something is made: a signal no longer ends this process halfway.
    let signals = Signals::catch()?;
    let run_dir = RunDir::create(&place, &config).map_err(Refused::because)?;
    let entrance = Entrance::open(listener, security, how.token_file.as_deref(), &run_dir)?;
    let store = store::open(&config, run_dir.path()).map_err(Refused::because)?;
    store::require_new(&*store, &config.run.name).map_err(Refused::because)?;
    let lead = take_lead(&config, &run_dir, store, &entrance.address(&config)?).await?;
    let local = Local { workers: local, binary };
    carry(Task { config, plan, run_dir, lead, local, entrance, copies }, signals).await
}

/// Where the run's checkpoints are copied to.
pub(super) fn copies(config: &ValidConfig) -> Result<Option<Destination>, Refused> {
    Destination::of_run(&config.checkpoint, &config.run.name).map_err(Refused::because)
}

/// The same, of a run that has begun: it does not need them, so it goes on without where they cannot be had.
pub(super) async fn copies_if_any(config: &ValidConfig) -> anyhow::Result<Option<Destination>> {
    let copies = copies(config)?;
    if let Some(copies) = &copies
        && let Err(error) = copies.probe().await
    {
        complain(format!("{error:#}; the run goes on without copies until that is so"));
    }
    Ok(copies)
}

/// Goes on with the run in `run_dir` from its last good checkpoint.
///
/// # Errors
/// As [`super::launch`].
pub async fn resume(
    run_dir: &Path,
    workers: Option<usize>,
    token_file: Option<&Path>,
) -> anyhow::Result<Exit> {
    let place = std::path::absolute(run_dir).map_err(Refused::because)?;
    let run_dir = RunDir::open(&place).map_err(Refused::because)?;
    let mut config = run_dir.config().map_err(Refused::because)?;
    let store = store::open(&config, run_dir.path()).map_err(Refused::because)?;
    // Before anything is checked: a run that is done needs neither its model nor its data any more.
    if let Some(Outcome::Done) = outcome(&*store)? {
        let shown = run_dir.path().display();
        say(format!("The run in {shown} is done already; nothing was started."));
        return Ok(Exit::Done);
    }
    let local = take_workers(&mut config, workers);
    let config = config.validate().map_err(Refused::because)?;
    // It has been started once: whether it fits, its workers will have shown.
    let plan = preflight::check(&config, &place, None)?;
    let binary = worker_binary(local)?;
    let listener = listen(&config).await?;
    let signals = Signals::catch()?;
    run_dir.make_folders()?;
    let entrance = Entrance::open(listener, security(&config)?, token_file, &run_dir)?;
    let lead = take_lead(&config, &run_dir, store, &entrance.address(&config)?).await?;
    let copies = copies_if_any(&config).await?;
    let local = Local { workers: local, binary };
    carry(Task { config, plan, run_dir, lead, local, entrance, copies }, signals).await
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
