//! From a run file to a run directory whose run fits its place on the cluster.

use std::path::{Path, PathBuf};

use medevo_common::config::{CoordinatorNode, RunConfig, ValidConfig, WorkerDevice};

use super::script::unfit;
use crate::{
    launch::{Run, describe, entrance::security, find_worker_binary, local::copies},
    preflight::{self, Refused},
    run_dir::RunDir,
};

/// A run that can be started.
pub(super) struct Prepared {
    /// Its run file, resolved.
    pub(super) config: ValidConfig,
    /// Its directory, which is not there yet.
    pub(super) place: PathBuf,
    /// What it will do, for people.
    pub(super) plan: String,
}

/// What the run file says for `seed` (none: its own), and where the run would lie.
///
/// # Errors
/// [`Refused`]: the run file cannot be used.
pub(super) fn read(run: &Run, seed: Option<u64>) -> anyhow::Result<(RunConfig, PathBuf)> {
    let mut config = RunConfig::load(&run.file, &run.set).map_err(Refused::because)?;
    let place = run.run_dir.clone().or_else(|| config.run.dir.clone());
    let place = place.unwrap_or_else(|| Path::new("runs").join(&config.run.name));
    let mut place = std::path::absolute(&place).map_err(Refused::because)?;
    if let Some(seed) = seed {
        let suffix = format!("-s{seed}");
        config.run.seed = seed;
        config.run.name.push_str(&suffix);
        place.as_mut_os_string().push(&suffix);
    }
    if unfit(&place) {
        return Err(Refused::new(format!(
            "the run directory {} has spaces, quotes, `%`, `#` or `\\` in its name, which Slurm would read as something \
             else; choose another with --run-dir",
            place.display()
        ))
        .into());
    }
    Ok((config, place))
}

/// A run that exists goes on as it is.
///
/// # Errors
/// [`Refused`]: it was asked for otherwise.
pub(super) fn as_it_is(run: &Run) -> Result<(), Refused> {
    if run.set.is_empty() && run.seeds.is_none() && run.run_dir.is_none() {
        return Ok(());
    }
    Err(Refused::new(format!(
        "{} is a run that exists: it goes on as it is, without --set, --seeds and --run-dir",
        run.file.display()
    )))
}

/// Fits a run to its cluster and checks everything that can be checked before it starts. `beyond`: its coordinator and
/// its workers are on different machines.
///
/// # Errors
/// [`Refused`]: something is not usable.
pub(super) async fn prepare(
    run: &Run,
    mut config: RunConfig,
    place: PathBuf,
    beyond: bool,
) -> anyhow::Result<Prepared> {
    let slurm = config.cluster.slurm.get_or_insert_default().clone();
    // As it was written: the numbers below would hide what is wrong.
    config.clone().validate().map_err(Refused::because)?;
    let cluster = &mut config.cluster;
    // Exactly those workers come: nobody else is waited for.
    cluster.max_workers = slurm.workers();
    cluster.workers = slurm.workers();
    if beyond || slurm.nodes > 1 || slurm.coordinator == CoordinatorNode::Own {
        open(&mut cluster.listen);
    }
    if config.engine.threads == 0 {
        config.engine.threads = slurm.cpus_per_task.unwrap_or(1);
    }
    let config = config.validate().map_err(Refused::because)?;
    // A login node's memory says nothing; a GPU's is in the run file.
    let fits = (config.cluster.device == WorkerDevice::Cuda && !run.ignore_memory)
        .then_some(slurm.tasks_per_node);
    let plan = preflight::check(&config, &place, fits)?;
    security(&config)?;
    if slurm.container_image.is_none() && slurm.apptainer_image.is_none() {
        find_worker_binary().map_err(Refused::because)?;
    }
    let copies = copies(&config)?;
    if let Some(copies) = copies.filter(|_| !run.dry_run) {
        copies.probe().await.map_err(Refused::because)?;
        copies.refuse_used().await.map_err(Refused::because)?;
    }
    let plan = describe(&config, &plan, &place, slurm.workers());
    Ok(Prepared { config, place, plan })
}

impl Prepared {
    /// Makes the run directory.
    ///
    /// # Errors
    /// [`Refused`]: there is something already.
    pub(super) fn make(&self) -> anyhow::Result<RunDir> {
        Ok(RunDir::create(&self.place, &self.config).map_err(Refused::because)?)
    }
}

/// An address that only this machine reaches becomes one that the others reach, too; the port stays.
fn open(listen: &mut String) {
    if let Some((host, port)) = listen.rsplit_once(':')
        && (host == "localhost" || host.starts_with("127.") || host == "[::1]")
    {
        *listen = format!("0.0.0.0:{port}");
    }
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn what_was_chosen_stays() {
        for (listen, opened) in [
            ("127.0.0.1:0", "0.0.0.0:0"),
            ("localhost:7000", "0.0.0.0:7000"),
            ("10.0.0.5:7000", "10.0.0.5:7000"),
        ] {
            let mut listen = listen.to_owned();
            open(&mut listen);
            assert_eq!(listen, opened);
        }
    }
}
