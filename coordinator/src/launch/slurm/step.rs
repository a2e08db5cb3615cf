//! The workers: one job step, a task for each.

use std::{fs::OpenOptions, path::Path, process::Stdio};

use anyhow::Context;
use medevo_common::config::{CoordinatorNode, RunConfig, WorkerDevice};
use tokio::process::{Child, Command};

use crate::{launch::find_worker_binary, run_dir::RunDir};

/// The variable that tells workers the nodes' addresses; `medevo-worker join --slurm` reads it.
const ADDRESSES: &str = "MEDEVO_NODE_ADDRESSES";
/// What a worker prints when it is asked to leave: with `--slurm` it stays, and the run drains.
pub(super) const NOTICE: &str = "medevo-worker: SIGTERM";
/// What the coordinator alone needs.
const NOT_FOR_WORKERS: [&str; 3] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Starts the workers of a job with `nodes` nodes at `addresses`. Their standard output is for the launcher, what they
/// log goes to a file of the run directory.
pub(super) fn start(
    config: &RunConfig,
    run_dir: &RunDir,
    nodes: usize,
    tasks: usize,
    addresses: &[(String, String)],
) -> anyhow::Result<Child> {
    let log = run_dir.logs().join("workers.log");
    let file = OpenOptions::new().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("opening {}", log.display()))?;
    let mut command = Command::new("srun");
    command.args(options(config, run_dir.path(), nodes, tasks));
    command.args(worker(config, run_dir.path())?);
    for name in NOT_FOR_WORKERS.into_iter().chain(["MEDEVO_TOKEN"]) {
        command.env_remove(name);
    }
    let addresses: Vec<String> =
        addresses.iter().map(|(node, address)| format!("{node}={address}")).collect();
    command
        .env(ADDRESSES, addresses.join(","))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        // What is meant for the launcher must not end the step.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("starting the workers with `srun`")
}

/// How the step is laid out. A lost worker or node must not end it; every task sees all GPUs of its node, so that NCCL
/// finds its way between them.
fn options(config: &RunConfig, run_dir: &Path, nodes: usize, tasks: usize) -> Vec<String> {
    let slurm = config.cluster.slurm.clone().unwrap_or_default();
    let own = slurm.coordinator == CoordinatorNode::Own;
    let nodes = nodes - usize::from(own);
    let mut options = vec![
        format!("--nodes={nodes}"),
        format!("--ntasks={}", nodes * tasks),
        format!("--ntasks-per-node={tasks}"),
        // Not inherited from the job by every version.
        format!("--cpus-per-task={}", slurm.cpus_per_task.unwrap_or(1)),
        "--export=ALL".into(),
        "--no-kill".into(),
        "--kill-on-bad-exit=0".into(),
        "--wait=0".into(),
        "--mpi=none".into(),
        "--label".into(),
        "--job-name=workers".into(),
    ];
    if own {
        options.push("--relative=1".into());
    }
    if let Some(image) = slurm.container_image {
        options.push(format!("--container-image={image}"));
        let mounts = mounts(config, run_dir, slurm.container_mounts);
        options.push(format!("--container-mounts={}", mounts.join(",")));
    }
    options
}

/// The worker's command line, in a container if there is one.
fn worker(config: &RunConfig, run_dir: &Path) -> anyhow::Result<Vec<String>> {
    let slurm = config.cluster.slurm.clone().unwrap_or_default();
    let gpu = config.cluster.device == WorkerDevice::Cuda;
    let mut line = Vec::new();
    let contained = slurm.container_image.is_some() || slurm.apptainer_image.is_some();
    if let Some(image) = slurm.apptainer_image {
        line.extend(["apptainer".to_owned(), "exec".to_owned()]);
        line.extend(gpu.then(|| "--nv".to_owned()));
        for mount in mounts(config, run_dir, slurm.container_mounts) {
            line.extend(["--bind".to_owned(), mount]);
        }
        line.push(image);
    }
    line.push(match contained {
        true => slurm.container_worker,
        false => find_worker_binary()?.to_string_lossy().into_owned(),
    });
    let device = if gpu { "cuda" } else { "cpu" };
    let run_dir = run_dir.to_string_lossy().into_owned();
    let arguments = ["join", "--slurm", "--run-dir", &run_dir, "--device", device];
    line.extend(arguments.map(str::to_owned));
    let grace = slurm.coordinator_grace_s.to_string();
    line.extend(["--join-deadline", &grace, "--leader-grace", &grace].map(str::to_owned));
    if let Some(directory) = &config.cluster.certificates {
        line.extend(["--certificates".to_owned(), directory.to_string_lossy().into_owned()]);
    }
    Ok(line)
}

/// What a worker reads and writes, each at its own path in the container, and what else was asked for.
fn mounts(config: &RunConfig, run_dir: &Path, asked: Vec<String>) -> Vec<String> {
    let data = config.data.values().map(|data| data.path.as_path());
    let needed = [Some(run_dir), Some(config.model.path.as_path())].into_iter().flatten();
    let store = [&config.store.ca, &config.store.cert, &config.store.key];
    let store = store.into_iter().filter_map(Option::as_deref);
    let needed = needed.chain(data).chain(config.cluster.certificates.as_deref()).chain(store);
    // Both tools take what is there twice amiss.
    let mut all: Vec<String> = Vec::new();
    for mount in needed.map(|path| format!("{0}:{0}", path.display())).chain(asked) {
        if !all.contains(&mount) {
            all.push(mount);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    fn config(slurm: &str) -> RunConfig {
        fixture::config(&format!("[cluster]\ndevice = \"cuda\"\n[cluster.slurm]\n{slurm}"))
    }

    /// Fails when a task would see one GPU only, or when the loss of one ends the others.
    #[test]
    fn the_step_outlives_its_tasks() {
        let options = options(&config("coordinator = \"own\"\n"), Path::new("/runs/x"), 3, 8);
        for option in ["--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--relative=1"] {
            assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
        }
        for option in ["--no-kill", "--kill-on-bad-exit=0", "--wait=0"] {
            assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
        }
        assert!(!options.iter().any(|option| option.starts_with("--gpus-per-task")));
    }

    /// Fails when a container lacks what its worker reads.
    #[test]
    fn containers_see_run_model_and_data() {
        let run_dir = Path::new("/runs/x");
        let pyxis =
            config("container_image = \"reg.org/medevo:1\"\ncontainer_mounts = [\"/scratch\"]\n");
        let options = options(&pyxis, run_dir, 1, 1);
        let mounts = "--container-mounts=/runs/x:/runs/x,/m:/m,/d:/d,/scratch";
        for option in ["--container-image=reg.org/medevo:1", mounts] {
            assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
        }
        assert_eq!(worker(&pyxis, run_dir).expect("a command")[0], "medevo-worker");
        let apptainer = config("apptainer_image = \"/images/medevo.sif\"\n");
        let line = worker(&apptainer, run_dir).expect("a command").join(" ");
        let begin = "apptainer exec --nv --bind /runs/x:/runs/x --bind /m:/m --bind /d:/d /images/medevo.sif \
                     medevo-worker join --slurm --run-dir /runs/x --device cuda";
        assert!(line.starts_with(begin), "{line}");
    }
}
