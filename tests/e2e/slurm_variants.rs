//! `launch --on slurm` in its variants: what is shown and refused beforehand, arrays, a coordinator on a node of its own,
//! etcd, containers.

use std::{fs, os::unix::fs::PermissionsExt};

use medevo_tests::{
    etcd::Etcd,
    history::History,
    lab::STEPS,
    process::{binary, coord, finish, must},
    slurm::{SIX, Site, Slurm, lab},
};

/// Fails when the script is made only in the end, when a rehearsal leaves something behind, or when what cannot work is
/// found out by a job in the queue.
#[test]
fn what_slurm_would_get_is_shown_and_what_cannot_work_is_refused() {
    let lab = lab(&format!("{SIX}partition = \"main\"\nextra = [\"--mail-type=FAIL\"]\n"));
    let launch = |arguments: &[&str]| {
        let mut launch = coord(["launch", &lab.path("run.toml"), "--on", "slurm", "--dry-run"]);
        launch.args(["--run-dir", &lab.path("run")]).args(arguments).env_remove("SLURM_JOB_ID");
        finish(launch)
    };
    let said = launch(&[]).expect_code(0);
    for line in [
        "#SBATCH --nodes=3",
        "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gres=gpu:2",
        "#SBATCH --signal=B:USR2@30",
        "#SBATCH --requeue",
        "#SBATCH --mail-type=FAIL",
    ] {
        assert!(said.stdout.lines().any(|l| l == line), "{line}: {}", said.said());
    }
    assert!(!lab.run_dir("run").exists(), "a rehearsal makes nothing");
    for (arguments, words) in [
        (vec!["--set", "cluster.max_workers=5"], "cluster.slurm.nodes"),
        (vec!["--set", "cluster.trusted_network=false"], "certs init"),
        (vec!["--set", "cluster.slurm.partition=a b"], "cluster.slurm.partition"),
        (vec!["--set", "cluster.slurm.extra=[\"--signal=USR1@9\"]"], "signal_before_s"),
        (vec!["--set", "cluster.slurm.node=4"], "nodes"),
        (vec!["--workers", "2"], "cluster.slurm.tasks_per_node"),
        (vec!["--seeds", "4-0"], "--seeds"),
        (vec!["--run-dir", "/tmp/my runs"], "--run-dir"),
    ] {
        // The last of two of a kind would be refused by the command line itself.
        let mut command = coord(["launch", &lab.path("run.toml"), "--on", "slurm", "--dry-run"]);
        command.args(&arguments).env_remove("SLURM_JOB_ID");
        let said = finish(command).expect_code(2);
        assert!(said.stderr.contains(words), "{words}: {}", said.said());
    }
}

/// Fails when runs of an array get into each other's way, or their seeds are not their own.
#[test]
fn an_array_runs_one_run_a_seed() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab("gres = \"gpu:1\"\nsignal_before_s = 30\n");
    let mut launch = slurm.launch(&lab, "run");
    launch.args(["--seeds", "3,8", "--wait"]);
    let said = finish(launch).expect_code(0);
    for seed in [3, 8] {
        let dir = lab.run_dir(&format!("run-s{seed}"));
        History::read(&dir).check(STEPS);
        let text = std::fs::read_to_string(dir.join("run.toml")).expect("the run file");
        let named = format!("name = \"small-s{seed}\"");
        assert!(
            text.contains(&named) && text.contains(&format!("seed = {seed}")),
            "{}",
            said.said()
        );
    }
    let dirs = [3, 8].map(|seed| lab.run_dir(&format!("run-s{seed}")));
    let [a, b] = &dirs;
    let _ = must(coord(["compare", &a.to_string_lossy(), &b.to_string_lossy()]));
}

/// Fails when a run that waits in the queue is shown as one to start by hand, or when stopping it leaves the job there, so
/// that it begins when nobody expects it.
#[test]
fn a_run_that_waits_in_the_queue_is_shown_and_can_be_stopped() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(&format!("{SIX}extra = [\"--hold\"]\n"));
    let _ = finish(slurm.launch(&lab, "run")).expect_code(0);
    let job = slurm.the_job();
    let run = lab.path("run");
    let said = finish(slurm.on(coord(["status", &run]))).expect_code(0);
    assert!(said.stdout.contains(&format!("job {job} is PENDING")), "{}", said.said());
    let said = finish(slurm.on(coord(["drain", &run]))).expect_code(0);
    assert!(said.stdout.contains("cancelled"), "{}", said.said());
    assert_eq!(slurm.job(&job)["JobState"], "CANCELLED");
    let said = finish(slurm.on(coord(["stop", &run]))).expect_code(0);
    assert!(said.stdout.contains("nothing to stop"), "{}", said.said());

    // Inside of a job, as outside: what would happen, and nothing else.
    let mut inside = slurm.on(coord(["launch", &run, "--dry-run"]));
    inside.env("SLURM_JOB_ID", &job);
    let said = finish(inside).expect_code(0);
    assert!(said.stdout.contains("would go on"), "{}", said.said());
    let mut inside = slurm.on(coord(["launch", &run, "--set", "run.seed=1"]));
    inside.env("SLURM_JOB_ID", &job);
    let said = finish(inside).expect_code(2);
    assert!(said.stderr.contains("as it is"), "{}", said.said());
}

/// Plays Apptainer: writes down what it is asked, and runs the command as it stands.
const APPTAINER: &str = r#"#!/bin/bash
echo "$*" >>"$(dirname "$0")/asked"
[ "$1" = exec ] || exit 1
shift
while [ "$1" = --bind ]; do shift 2; done
shift
exec "$@"
"#;

/// Fails when a coordinator on its own node shares it with workers, or when workers in containers do not find their run
/// by etcd.
#[test]
fn a_coordinator_of_its_own_with_etcd_and_workers_in_containers() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let etcd = Etcd::start(1);
    let binary = binary("medevo-worker").display().to_string();
    let lab = lab(&format!(
        "nodes = 2\ntasks_per_node = 2\ngres = \"gpu:2\"\ncoordinator = \"own\"\nsignal_before_s = 30\n\
         apptainer_image = \"medevo.sif\"\ncontainer_worker = \"{binary}\"\ncontainer_mounts = [\"/opt\"]\n\
         [store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\n",
        etcd.endpoints()[0]
    ));
    let tool = lab.run_dir("bin").join("apptainer");
    fs::create_dir(lab.path("bin")).expect("a folder");
    fs::write(&tool, APPTAINER).expect("written");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut launch = slurm.launch(&lab, "run");
    let path = std::env::var("PATH").unwrap_or_default();
    launch.arg("--wait").env("PATH", format!("{}:{path}", lab.path("bin")));
    let said = finish(launch).expect_code(0);
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    assert_eq!(history.roster(), ["n2-0", "n2-1", "n3-0", "n3-1"], "{}", said.said());
    let asked = fs::read_to_string(lab.path("bin/asked")).expect("Apptainer was asked");
    assert_eq!(asked.lines().count(), 4, "each worker in a container: {asked}");
    for line in asked.lines() {
        for seen in ["run", "model", "data/target"] {
            let path = lab.path(seen);
            assert!(line.contains(&format!("--bind {path}:{path}")), "{seen}: {line}");
        }
        assert!(line.contains(&format!("--bind /opt medevo.sif {binary} join --slurm")), "{line}");
    }
}
