//! Ctrl-C: the run drains, writes a checkpoint, and `resume` goes on from there.

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{finish, processes_naming, signal, wait},
};

/// Fails when an interrupted run loses its place, leaves a process, or ends with another exit code.
#[test]
fn ctrl_c_drains_and_resume_goes_on() {
    let lab = Lab::new();
    let dir = lab.run_dir("run");
    let mut command = lab.launch("run", 2);
    command.args(["--set", "stage.adapt.steps=400"]);
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 6);
    signal(child.id(), "INT");
    let said = wait(child).expect_code(3);
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left: {}", said.said());
    let history = History::read(&dir);
    let reached = *history.committed().keys().max().expect("steps were committed");
    let published = history.of("checkpoint_published").last().expect("a checkpoint");
    assert_eq!(published["step"], reached, "the checkpoint is of the last step");
}

/// Fails when a finished run is started over by mistake.
#[test]
fn resuming_a_finished_run_changes_nothing() {
    let lab = Lab::new();
    let _ = lab.run("run", 1);
    let before = std::fs::read(lab.run_dir("run").join("events.jsonl")).expect("events");
    let said = lab.resume("run", 1).expect_code(0);
    let after = std::fs::read(lab.run_dir("run").join("events.jsonl")).expect("events");
    assert_eq!(before.len(), after.len(), "{}", said.said());
    History::read(&lab.run_dir("run")).check(STEPS);
    let again = finish(lab.launch("run", 1)).expect_code(2);
    assert!(again.stderr.contains("resume"), "the way out is named: {}", again.said());
}
