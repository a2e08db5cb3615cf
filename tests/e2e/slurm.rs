//! `launch --on slurm` on a real Slurm: munge, a controller and three nodes on this host (`ops/slurm/up`).

use std::{
    process::{Child, Command},
    time::SystemTime,
};

use medevo_tests::{
    chaos::network::{Network, Plane},
    history::{History, time},
    lab::{Lab, STEPS},
    process::{Finished, coord, finish, processes_naming, signal, until, wait},
    slurm::{SIX, Site, Slurm, lab},
};
use serde_json::Value;

/// The run goes on without a node that is lost.
const GO_ON: &str = "on_node_loss = \"go_on\"\n";

/// A run that is not over by itself soon.
fn long(mut launch: Command) -> Command {
    launch.args(["--set", "stage.adapt.steps=1000"]);
    launch
}

fn start(mut launch: Command) -> Child {
    launch.arg("--wait").spawn().expect("the command starts")
}

fn started_on(history: &History) -> Vec<(String, u64)> {
    let read = |event: &Value| {
        let job = event["job"].as_str().expect("a job").to_owned();
        (job, event["restart"].as_u64().expect("a number"))
    };
    history.of("started_on").map(read).collect()
}

fn committed(lab: &Lab, name: &str) -> usize {
    History::read_so_far(&lab.run_dir(name)).of("step_committed").count()
}

fn until_further(lab: &Lab, name: &str, steps: usize) {
    let before = committed(lab, name);
    lab.until_committed(name, before + steps);
}

/// Has a run stop as the README says, and expects that it has, with a checkpoint, and that nothing is left.
fn stop(slurm: &Slurm, lab: &Lab, name: &str, job: &str, waiting: Child) -> Finished {
    slurm.ask("scancel", &["--batch", "--signal=INT", job]);
    let said = wait(waiting).expect_code(3);
    let history = History::read(&lab.run_dir(name));
    let steps = history.check_invariants() as u64;
    let checkpoint = history.of("checkpoint_published").last().expect("a checkpoint");
    assert_eq!(checkpoint["step"], steps, "the run drained with a checkpoint: {}", said.said());
    until("nothing is left running", || processes_naming(&lab.run_dir(name)).is_empty());
    said
}

/// The whole way of a run: six workers on three nodes, a job that is queued again, a node that is lost. Fails when the
/// run does not come to its end by itself, loses a step that it had committed, or tells nothing of what happened.
#[test]
fn a_run_survives_a_requeue_and_the_loss_of_a_node() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(&format!("{SIX}{GO_ON}"));
    let mut launch = slurm.launch(&lab, "run");
    launch.args(["--set", "stage.adapt.steps=26"]);
    let submitted = SystemTime::now();
    let waiting = start(launch);
    let job = slurm.the_job();
    lab.until_committed("run", 4);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.roster().len(), 6, "a worker a GPU: {:?}", history.roster());
    let first = time(history.of("step_committed").next().expect("a step"));
    let took = first.duration_since(submitted).unwrap_or_default();
    println!("from submission to the first committed step: {:.1} s (1 run)", took.as_secs_f64());

    // The notice before a time limit; the job is queued again.
    slurm.ask("scancel", &["--batch", "--signal=USR2", &job]);
    slurm.until_job(&job, "RUNNING", 1);
    until_further(&lab, "run", 2);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.steps_redone(), 0, "the run drained first, with a checkpoint");
    assert_eq!(started_on(&history), [(job.clone(), 0), (job.clone(), 1)]);

    slurm.lose("n3");
    let said = wait(waiting).expect_code(0);
    let dir = lab.run_dir("run");
    let history = History::read(&dir);
    history.check(STEPS + 20);
    history.check_digests();
    assert_eq!(history.roster(), ["n1-0", "n1-1", "n2-0", "n2-1"], "{}", said.said());
    assert_eq!(history.steps_redone(), 0, "the others held the weights");
    assert!(said.stdout.contains(&format!("submitted job {job}")), "{}", said.said());
    let script = std::fs::read_to_string(dir.join("slurm.sh")).expect("the script is kept");
    assert!(
        script.contains("#SBATCH --ntasks-per-node=2") && !script.contains("127.0.0.1"),
        "{script}"
    );
    assert_eq!(slurm.job(&job)["Restarts"], "1", "the loss of the node ended no life of the job");
}

/// Fails when a job ends at its time limit instead of before it, loses steps, or does not come back.
#[test]
fn a_time_limit_drains_the_run_and_queues_it_again() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(SIX);
    let mut launch = long(slurm.launch(&lab, "run"));
    // The shortest limit there is. Slurm looks twice a minute: the notice comes within thirty seconds.
    launch.args(["--set", "cluster.slurm.time=\"1\""]);
    let waiting = start(launch);
    let job = slurm.the_job();
    slurm.until_job(&job, "RUNNING", 1);
    slurm.ask("scontrol", &["update", &format!("JobId={job}"), "TimeLimit=60"]);
    until_further(&lab, "run", 1);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.steps_redone(), 0, "the run drained before its time was up");
    let drained = history.of("finished").next().expect("the first life ended well").to_string();
    assert!(drained.contains("SIGUSR2"), "{drained}");
    let _ = stop(&slurm, &lab, "run", &job, waiting);
}

/// Fails when a job that a higher partition pushes aside loses what it did, or does not come back afterwards.
#[test]
fn preemption_drains_the_run_and_it_comes_back() {
    let Some(slurm) = Slurm::up(Site { grace: 30, ..Site::default() }) else { return };
    let lab = lab(SIX);
    let waiting = start(long(slurm.launch(&lab, "run")));
    let job = slurm.the_job();
    lab.until_committed("run", 4);
    let urgent = ["-p", "urgent", "-N3", "--gres=gpu:2", "--parsable", "--wrap", "sleep 2"];
    let urgent = slurm.ask("sbatch", &[&urgent[..], &["--output=/dev/null"]].concat());
    slurm.until_job(&urgent, "RUNNING", 0);
    let steps = committed(&lab, "run");
    slurm.until_job(&job, "RUNNING", 1);
    lab.until_committed("run", steps + 1);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.steps_redone(), 0, "the run drained in its grace time");
    let _ = stop(&slurm, &lab, "run", &job, waiting);
}

/// Fails when a cancelled job leaves anything running or comes back by itself, or when its run cannot be gone on with.
#[test]
fn a_cancelled_run_can_be_gone_on_with() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(SIX);
    let waiting = start(slurm.launch(&lab, "run"));
    let job = slurm.the_job();
    lab.until_committed("run", 4);
    slurm.ask("scancel", &[&job]);
    let _ = wait(waiting).expect_code(3);
    let dir = lab.run_dir("run");
    until("nothing is left running", || processes_naming(&dir).is_empty());
    assert_eq!(slurm.job(&job)["JobState"], "CANCELLED");

    let again = slurm.on(coord(["launch", &dir.to_string_lossy(), "--on", "slurm", "--wait"]));
    let said = finish(again).expect_code(0);
    let history = History::read(&dir);
    history.check(STEPS);
    assert_eq!(history.of("started_on").count(), 2, "{}", said.said());

    // Bad input of Slurm's own is bad input, and leaves nothing.
    let mut nowhere = slurm.launch(&lab, "nowhere");
    nowhere.args(["--set", "cluster.slurm.partition=no-such-partition"]);
    let said = finish(nowhere).expect_code(2);
    assert!(
        said.stderr.contains("partition") && !lab.run_dir("nowhere").exists(),
        "{}",
        said.said()
    );
}

/// Fails when the loss of the node that the coordinator is on ends the run: no process of ours is left there.
#[test]
fn the_loss_of_the_coordinators_node_queues_the_job_again() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(&format!("{SIX}min_nodes = 2\ncoordinator_grace_s = 10\n"));
    let waiting = start(long(slurm.launch(&lab, "run")));
    let job = slurm.the_job();
    lab.until_committed("run", 7);
    slurm.lose("n1");
    slurm.until_job(&job, "RUNNING", 1);
    until_further(&lab, "run", 1);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.roster(), ["n2-0", "n2-1", "n3-0", "n3-1"]);
    assert!(history.steps_redone() <= 3, "it went on from its last checkpoint");
    let _ = stop(&slurm, &lab, "run", &job, waiting);
}

/// Fails when the daemon of a node (SIGKILL) takes the run along, or when a coordinator that breaks does: the job goes
/// on, and the workers keep their weights.
#[test]
fn a_killed_daemon_and_a_killed_coordinator_do_not_end_the_job() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab(&format!("{SIX}{GO_ON}"));
    let waiting = start(long(slurm.launch(&lab, "run")));
    let job = slurm.the_job();
    lab.until_committed("run", 4);
    slurm.kill_daemon("n2");
    until_further(&lab, "run", 1);
    let serve = |line: &&String| line.contains("serve");
    let pid = |line: &String| line.split(':').next().and_then(|pid| pid.parse().ok());
    let running = processes_naming(&lab.run_dir("run"));
    let coordinator = running.iter().find(serve).and_then(pid).expect("a coordinator");
    signal(coordinator, "KILL");
    until_further(&lab, "run", 2);
    until("Slurm takes n2 from the job", || slurm.job(&job)["NumNodes"] == "2");
    until_further(&lab, "run", 1);
    let history = History::read_so_far(&lab.run_dir("run"));
    assert_eq!(history.of("started").count(), 2, "a second coordinator");
    assert_eq!(slurm.job(&job)["Restarts"], "0");
    assert!(history.steps_redone() <= 1, "the workers kept their weights");
    slurm.restore("n2");
    let _ = stop(&slurm, &lab, "run", &job, waiting);
}

/// A node is cut off: its ranks run on, Slurm cannot end them, and the job is queued again without it. Fails when they
/// are let in again once the network heals, or harm the run.
#[test]
fn a_rank_that_slurm_has_lost_sight_of_is_kept_out() {
    let Some(network) = Network::up(3) else { return };
    let addresses: Vec<String> = (0..3).map(|host| network.control(host)).collect();
    let site = Site {
        spaces: (0..3).map(|host| network.space(host)).collect(),
        addresses,
        control: Some(network.coordinator()),
        ..Site::default()
    };
    let Some(slurm) = Slurm::up(site) else { return };
    let lab = lab(&format!("{SIX}{GO_ON}min_nodes = 2\n"));
    let waiting = start(long(slurm.launch(&lab, "run")));
    let job = slurm.the_job();
    lab.until_committed("run", 4);
    network.set(2, Plane::Control, false);
    until("Slurm takes n3 from the job", || slurm.job(&job)["NumNodes"] == "2");
    until_further(&lab, "run", 1);
    let cut_off = slurm.tasks("n3");
    assert!(!cut_off.is_empty(), "the ranks of n3 run on");
    slurm.ask("scancel", &["--batch", "--signal=USR2", &job]);
    slurm.until_job(&job, "RUNNING", 1);
    until_further(&lab, "run", 1);

    let events = History::read_so_far(&lab.run_dir("run")).0.len();
    network.set(2, Plane::Control, true);
    let dir = lab.run_dir("run");
    // Slurm, which sees the node again, may be quicker and end them.
    until("n3's ranks are turned away, or gone", || {
        let later = &History::read_so_far(&dir).0[events..];
        later.iter().any(|event| event["event"] == "join_refused") || slurm.tasks("n3").is_empty()
    });
    until_further(&lab, "run", 2);
    let history = History::read_so_far(&dir);
    let later = &history.0[events..];
    let of_n3 = |event: &&Value| event["worker"].as_str().is_some_and(|w| w.starts_with("n3-"));
    let joined = later.iter().filter(of_n3).find(|event| event["event"] == "worker_joined");
    assert_eq!(joined, None, "what was cut off stays out");
    assert_eq!(history.roster(), ["n1-0", "n1-1", "n2-0", "n2-1"]);
    let _ = stop(&slurm, &lab, "run", &job, waiting);
}

/// Fails when a run inside of an allocation asks for another job, or when Ctrl-C on a command that waits ends its run.
#[test]
fn inside_of_an_allocation_the_run_starts_right_there() {
    let Some(slurm) = Slurm::up(Site::default()) else { return };
    let lab = lab("tasks_per_node = 2\nsignal_before_s = 30\n");
    let program = coord(["launch"]).get_program().to_string_lossy().into_owned();
    let mut salloc = Command::new("salloc");
    salloc.args(["--nodes=2", "--ntasks-per-node=2", "--gres=gpu:2", &program, "launch"]);
    salloc.args([&lab.path("run.toml"), "--run-dir", &lab.path("run")]);
    let mut salloc = slurm.on(salloc);
    salloc.stdin(std::process::Stdio::null());
    let _ = finish(salloc).expect_code(0);
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    assert_eq!(history.roster(), ["n1-0", "n1-1", "n2-0", "n2-1"]);
    assert_eq!(started_on(&history).len(), 1);

    let waiting = start(long(slurm.launch(&lab, "other")));
    let job = slurm.the_job();
    lab.until_committed("other", 1);
    signal(waiting.id(), "INT");
    let said = wait(waiting).expect_code(6);
    assert!(said.stdout.contains("goes on"), "{}", said.said());
    assert_eq!(slurm.job(&job)["JobState"], "RUNNING");
}
