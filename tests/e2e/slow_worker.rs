//! A worker that stands still (SIGSTOP, a frozen host) and wakes up when the run has gone on without it.

use medevo_tests::{
    history::History,
    lab::Lab,
    process::{processes_naming, signal, until, wait, worker_pid},
};

/// Fails when a sleeper holds the others up for longer than its lease and a collective's deadline, when
/// what it brings after waking does harm, or when it does not find its way back.
#[test]
fn a_worker_that_wakes_up_late_does_no_harm_and_joins_again() {
    let lab = Lab::new();
    let dir = lab.run_dir("run");
    let mut command = lab.launch("run", 2);
    command.args(["--set", "stage.adapt.steps=60"]);
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 6);
    let sleeper = worker_pid(&dir, "w1");
    signal(sleeper, "STOP");
    until("its lease runs out", || {
        History::read_so_far(&dir).of("worker_lost").any(|lost| lost["worker"] == "w1")
    });
    signal(sleeper, "CONT");
    let said = wait(child).expect_code(0);
    let history = History::read(&dir);
    history.check(64);
    assert!(history.of("rolled_back").next().is_none(), "w0 held the weights: {}", said.said());
    let lives = history.of("worker_joined").filter(|joined| joined["worker"] == "w1").count();
    assert_eq!(lives, 2, "it came back in a new life: {}", said.said());
    let last = history.of("generation_opened").last().expect("a generation");
    assert_eq!(last["workers"], serde_json::json!(["w0", "w1"]), "and took part again");
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");
}
