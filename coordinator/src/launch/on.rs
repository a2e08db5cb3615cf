//! Where a run goes: this machine, Slurm, Kubernetes.

use clap::ValueEnum;

use super::{Exit, Run, k8s, local, slurm};
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
    /// Where a run goes that says nothing of it: to Slurm inside of a job or where a cluster answers, else here. Who
    /// counts workers of this machine means this machine.
    async fn detect(run: &Run) -> Result<Self, Refused> {
        let slurm = run.workers.is_none() && slurm::is_here().await?;
        Ok(if slurm { Self::Slurm } else { Self::Local })
    }
}

/// Starts a run where it was asked for.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable: then nothing was made or started.
/// Otherwise what broke.
pub async fn launch(run: Run) -> anyhow::Result<Exit> {
    let on = match run.on {
        Some(on) => on,
        None => On::detect(&run).await?,
    };
    if run.seeds.is_some() && on != On::Slurm {
        return Err(Refused::new(
            "--seeds makes an array of Slurm jobs; elsewhere, launch one run a seed with --set run.seed=N and a \
             --run-dir of its own",
        )
        .into());
    }
    match on {
        On::Local => local::here(run).await,
        On::Slurm => slurm::launch(run).await,
        On::K8s => k8s::there(run).await,
    }
}
