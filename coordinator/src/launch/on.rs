//! Where a run goes: this machine, Slurm, Kubernetes.

use clap::ValueEnum;

use super::{Exit, Run, k8s, local};
use crate::preflight::Refused;

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// This machine.
    Local,
    /// A Slurm cluster: from a login node as a batch job, inside an allocation right there.
    Slurm,
    /// A Kubernetes cluster, with kubectl's current context.
    K8s,
}

impl On {
    /// Where a run goes that says nothing of it.
    #[must_use]
    pub fn detect() -> Self {
        Self::Local
    }
}

/// Starts a run where it was asked for.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable: then nothing was made or started.
/// Otherwise what broke.
pub async fn launch(run: Run) -> anyhow::Result<Exit> {
    match run.on.unwrap_or_else(On::detect) {
        On::Local => local::here(run).await,
        On::Slurm => Err(Refused::new("--on slurm is not there yet").into()),
        On::K8s => k8s::there(run).await,
    }
}
