//! The job of a run that nobody leads: it may wait in the queue, for its first life or a later one.

use std::{fmt, fs};

use super::{
    job::Job,
    tools::{PATIENCE, ask},
};
use crate::run_dir::RunDir;

/// Where the run directory keeps the id of the job that was submitted last.
const JOB: &str = "slurm-job";

/// A job that will lead the run, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Its id.
    pub(crate) id: String,
    /// Its state, and why it is in it.
    state: String,
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} is {}", self.id, self.state)
    }
}

/// Keeps the id. Without it `status` and `stop` know less, and nothing else is lost.
pub(super) fn remember(run_dir: &RunDir, job: &str) {
    if let Err(error) = fs::write(run_dir.path().join(JOB), job) {
        tracing::warn!("the job's id could not be kept: {error}");
    }
}

/// The run's job, if there is one that has not ended. None, too, where no controller answers.
pub(crate) async fn queued(run_dir: &RunDir) -> Option<Queued> {
    let id = fs::read_to_string(run_dir.path().join(JOB)).ok()?.trim().to_owned();
    let jobs =
        Job::of(&id).await.inspect_err(|error| tracing::debug!("job {id}: {error:#}")).ok()?;
    let job = jobs.into_iter().find(|job| job.ended().is_none())?;
    let why = Some(job.reason).filter(|why| !["None", ""].contains(&why.as_str()));
    let state = why.map_or_else(|| job.state.clone(), |why| format!("{} ({why})", job.state));
    Some(Queued { id, state })
}

/// Takes it from the queue; one that has just begun ends as `scancel` ends it.
///
/// # Errors
/// What Slurm says.
pub(crate) async fn cancel(job: &Queued) -> anyhow::Result<()> {
    ask("scancel", &[&job.id], PATIENCE).await.map(drop)
}
