//! A run over mutual TLS, with strangers at its door.

use std::net::TcpListener;

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{coord, finish, must, wait, worker},
};

const TOKEN: &str = "a token that both sides know";

fn certificates(lab: &Lab, name: &str) -> String {
    let dir = lab.path(name);
    let made = must(coord(["certs", "init", &dir, "--name", "localhost", "--name", "127.0.0.1"]));
    for word in ["ca.key", "only needed to make further certificates", "--certificates"] {
        assert!(made.stdout.contains(word), "{word}: {}", made.said());
    }
    dir
}

/// Fails when a launched run cannot work over mTLS, when somebody without its certificates gets in or harms
/// it, or when the operator is not told why they were turned away.
#[test]
fn a_run_over_mutual_tls_turns_strangers_away_and_goes_on() {
    let lab = Lab::new();
    let (ours, theirs) = (certificates(&lab, "certs"), certificates(&lab, "other-certs"));
    lab.amend(|text| text.replace("[cluster]\n", "[cluster]\ncertificates = \"certs\"\n"));
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address").to_string();
    drop(free);
    let token_file = lab.path("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).expect("written");
    let mut command = lab.launch("run", 2);
    command.args(["--set", &format!("cluster.listen={address}"), "--token-file", &token_file]);
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 1);

    let join = |extra: &[&str]| {
        let mut stray = worker(["join", "--coordinator", &address, "--worker-id", "w1"]);
        stray.args(["--token-file", &token_file]).args(extra);
        finish(stray).expect_code(1)
    };
    // Right token and a worker's name, but certificates of another CA, or none.
    let said = join(&["--certificates", &theirs]);
    assert!(said.stderr.contains("certs init"), "{}", said.said());
    let said = join(&[]);
    assert!(said.stderr.contains("--certificates"), "{}", said.said());
    // Its CA is ours, its certificate is not.
    std::fs::copy(format!("{ours}/ca.pem"), format!("{theirs}/ca.pem")).expect("copied");
    let said = join(&["--certificates", &theirs]);
    assert!(said.stderr.contains("did not accept this worker's certificate"), "{}", said.said());

    let said = wait(child).expect_code(0);
    for why in ["worker.pem", "does not speak TLS"] {
        assert!(said.stderr.contains(why), "the operator is told {why:?}: {}", said.said());
    }
    assert!(!said.said().contains(TOKEN), "no token is printed");
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    assert_eq!(history.of("worker_joined").count(), 2);
    assert_eq!(history.of("worker_lost").count(), 0);
    assert_eq!(history.of("join_refused").count(), 3);
}

/// Fails when a coordinator can be opened to a network by an oversight, or starts with certificates that
/// nobody will accept.
#[test]
fn what_is_not_secured_or_not_in_order_is_refused_before_anything_is_started() {
    let lab = Lab::new();
    let dry = |set: &[&str]| {
        let mut launch = lab.launch("run", 1);
        launch.arg("--dry-run");
        for set in set {
            launch.args(["--set", set]);
        }
        finish(launch)
    };
    let open = "cluster.listen=0.0.0.0:0";
    let said = dry(&[open]).expect_code(2);
    for word in ["cluster.listen", "certs init", "trusted_network"] {
        assert!(said.stderr.contains(word), "{word}: {}", said.said());
    }
    let _ = dry(&[open, "cluster.trusted_network=true"]).expect_code(0);
    let certs = certificates(&lab, "certs");
    let secured = format!("cluster.certificates={certs}");
    let _ = dry(&[open, &secured]).expect_code(0);
    std::fs::remove_file(format!("{certs}/coordinator.key")).expect("removed");
    let said = dry(&[open, &secured]).expect_code(2);
    assert!(said.stderr.contains("coordinator.key"), "{}", said.said());
    assert!(!lab.run_dir("run").exists(), "nothing half-written");
}
