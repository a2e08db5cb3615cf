//! `kill -9` of a worker in each phase: the run goes on with the other one and ends well.
//!
//! The victim sends SIGKILL to itself on reaching the named point (MEDEVO_FAULT), so that the phase is
//! exact and the death as sudden as any.

use medevo_tests::{
    cluster::Cluster,
    history::History,
    lab::{Lab, STEPS},
    process::{finish, processes_naming, worker},
};

/// Kills worker w1 at `point` and checks how the run ends. `redone`: whether the step has to be tried
/// again.
fn kill_at(point: &str) -> History {
    let lab = Lab::new();
    let mut command = lab.launch("run", 2);
    command.env("MEDEVO_FAULT", format!("w1:{point}"));
    let said = finish(command).expect_code(0);
    let dir = lab.run_dir("run");
    let history = History::read(&dir);
    history.check(STEPS);
    let lost: Vec<_> = history.of("worker_lost").collect();
    assert!(lost.iter().any(|e| e["worker"] == "w1"), "w1 is lost at {point}: {}", said.said());
    assert!(history.of("rolled_back").next().is_none(), "w0 held the weights: nothing is lost");
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");
    history
}

macro_rules! kill {
    ($($name:ident: $point:literal,)*) => {$(
        #[test]
        fn $name() {
            kill_at($point);
        }
    )*};
}

kill! {
    while_forming: "form@1",
    while_restoring: "restore@1",
    while_training_supervised: "update@2",
    while_evaluating: "rollout@4",
    while_rolling_out: "rollout@6",
    while_updating: "update@7",
    after_the_gradient_is_reduced: "ballot@7",
    before_applying: "apply@8",
    after_applying: "applied@8",
}

/// SIGTERM, as a scheduler sends it: fails when the worker drops what others wait for in a collective, or has them wait
/// for its lease.
#[test]
fn that_is_asked_to_leave() {
    let lab = Lab::new();
    let mut cluster = Cluster::new(&lab, "run");
    cluster.launch(&lab, 3, &["cluster.prompts_per_unit=1", "cluster.lease_ttl_s=60"], "");
    for name in ["w0", "w1", "w2"] {
        let mut command = worker(["join", "--coordinator", cluster.address(), "--worker-id", name]);
        command.args(["--leader-grace", "90"]);
        cluster.join_by(name, "", command);
    }
    cluster.until_committed(4);
    cluster.signal("w1", "TERM");
    cluster.expect_end("w1", 143);
    cluster.expect_done();
    let history = History::read(cluster.dir());
    history.check(STEPS);
    let lost: Vec<_> = history.of("worker_lost").collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0]["reason"], "it left on purpose");
    assert_eq!(history.steps_redone(), 0);
    assert_eq!(history.of("attempt_voided").count(), 0, "no collective was dropped");
}

/// Rank 0 writes checkpoints: its loss there must not lose the checkpoint.
#[test]
fn rank_0_while_checkpointing() {
    let lab = Lab::new();
    let mut command = lab.launch("run", 2);
    command.env("MEDEVO_FAULT", "w0:checkpoint@6");
    let _ = finish(command).expect_code(0);
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    assert!(history.of("checkpoint_published").any(|e| e["step"] == 6), "step 6 is published");
}

/// With a sharded optimizer a lost worker takes its part along: the run goes back to its last checkpoint, on
/// record, which the other reads whole, and does those steps again.
#[test]
fn that_holds_a_part_of_the_optimizer() {
    let lab = Lab::new();
    let mut command = lab.launch("run", 2);
    command.args(["--set", "train.shard=optimizer"]);
    command.env("MEDEVO_FAULT", "w1:update@8");
    let said = finish(command).expect_code(0);
    let dir = lab.run_dir("run");
    let history = History::read(&dir);
    history.check(STEPS);
    let back: Vec<_> = history.of("rolled_back").collect();
    assert_eq!(back.len(), 1, "{}", said.said());
    let step = back[0]["to"].as_u64().expect("a step");
    let parts = ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"];
    for part in parts {
        let file = dir.join(format!("checkpoints/step-{step:06}")).join(part);
        assert!(file.exists(), "{} is there", file.display());
    }
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");
}
