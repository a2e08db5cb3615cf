//! A run on Slurm. From a login node: a batch script, submitted. Inside an allocation: the run itself, with a
//! coordinator that may come back and workers as one job step.

mod allocation;
mod decide;
mod follow;
mod inside;
mod job;
mod prepare;
mod script;
mod seeds;
mod step;
mod submit;
mod tools;

use std::time::Duration;

pub(crate) use allocation::Allocation;

use super::{Exit, Run};
use crate::preflight::Refused;

/// How long `sinfo` may take to tell whether there is a cluster.
const LOOK: Duration = Duration::from_secs(3);

/// Whether this is a place to start Slurm jobs from: inside of one, or where a controller answers.
pub(super) async fn is_here() -> bool {
    Allocation::here().is_some() || tools::ask("sinfo", &["-h", "-o", "%P"], LOOK).await.is_ok()
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
    match Allocation::here() {
        Some(allocation) => inside::run(run, allocation).await,
        None => submit::submit(run).await,
    }
}
