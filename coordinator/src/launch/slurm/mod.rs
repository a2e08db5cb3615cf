//! A run on Slurm. From a login node: a batch script, submitted. Inside an allocation: the run itself, with a
//! coordinator that may come back and workers as one job step.

mod allocation;
mod decide;
#[cfg(test)]
mod fixture;
mod follow;
mod inside;
mod job;
mod prepare;
mod queue;
mod script;
mod seeds;
mod step;
mod submit;
mod tools;

use std::time::Duration;

pub(crate) use allocation::Allocation;
pub(crate) use queue::{cancel, queued};

use super::{Exit, Run};
use crate::preflight::Refused;

/// How long `sinfo` may take to tell whether there is a cluster.
const LOOK: Duration = Duration::from_secs(10);

/// Whether this is a place to start Slurm jobs from: inside of one, or where a controller answers.
///
/// # Errors
/// [`Refused`]: there is a cluster, but it does not tell. A login node is no place to compute on by accident.
pub(super) async fn is_here() -> Result<bool, Refused> {
    if Allocation::here().is_some() {
        return Ok(true);
    }
    match tools::ask("sinfo", &["-h", "-o", "%P"], LOOK).await {
        Ok(_) => Ok(true),
        Err(error) if error.is::<tools::Silent>() => Err(Refused::new(format!(
            "whether the run goes to Slurm is not clear: {error}; say --on slurm, or --on local for this machine"
        ))),
        Err(_) => Ok(false),
    }
}

/// Starts a run on Slurm.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable. Otherwise what broke.
pub(super) async fn launch(run: Run) -> anyhow::Result<Exit> {
    if run.workers.is_some() {
        return Err(Refused::new(
            "--workers counts workers of this machine; on Slurm set cluster.slurm.nodes and \
             cluster.slurm.tasks_per_node, or run it on this machine with --on local",
        )
        .into());
    }
    if run.token_file.is_some() {
        return Err(Refused::new(
            "--token-file is for this machine; on Slurm each life of the job makes a token in the run directory, for \
             its own workers only; leave it out",
        )
        .into());
    }
    match Allocation::here() {
        Some(allocation) => inside::run(run, allocation).await,
        None => submit::submit(run).await,
    }
}
