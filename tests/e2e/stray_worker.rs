//! A worker that does not belong to the run.

use std::net::TcpListener;

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{finish, wait, worker},
};

/// Fails when somebody without the token gets in, learns something, or can do the run any harm, be it
/// under the name of a worker that is a member.
#[test]
fn a_wrong_token_is_turned_away_and_the_run_goes_on() {
    let lab = Lab::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address").to_string();
    drop(free);
    let mut command = lab.launch("run", 2);
    command.args(["--set", &format!("cluster.listen={address}")]);
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 1);
    for name in ["w1", "stray"] {
        let mut stray = worker(["join", "--coordinator", &address, "--worker-id", name]);
        stray.env("MEDEVO_TOKEN", "a-token-of-another-run");
        let said = finish(stray).expect_code(1);
        assert!(said.stderr.contains("not admitted"), "{}", said.said());
        assert!(said.stderr.contains("MEDEVO_TOKEN"), "what to check is named: {}", said.said());
        assert!(!said.stderr.contains("small"), "nothing is told of the run: {}", said.said());
    }
    let said = wait(child).expect_code(0);
    assert!(said.stderr.contains("wrong token"), "the operator is told: {}", said.said());
    assert!(!said.said().contains("a-token-of-another-run"), "no token is printed");
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    assert_eq!(history.of("worker_joined").count(), 2);
    assert_eq!(history.of("worker_lost").count(), 0);
}
