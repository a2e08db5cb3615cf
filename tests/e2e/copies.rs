//! Copies of checkpoints in a real S3 server over HTTP: made while the run goes on, gone on from, and refused in time.

use std::{path::Path, process::Command};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{Finished, coord, finish, must, signal, until, wait},
    s3::S3,
};
use serde_json::Value;

/// A lab whose run copies its checkpoints into the server's bucket.
fn lab(s3: &S3) -> Lab {
    let lab = Lab::new();
    lab.amend(|text| format!("{text}copy_to = \"s3://{}/runs\"\n", s3.bucket));
    lab
}

fn launch(lab: &Lab, s3: &S3, name: &str) -> Command {
    let mut command = lab.launch(name, 2);
    s3.credentials(&mut command);
    command
}

fn until_event(dir: &Path, name: &str) {
    until(name, || History::read_so_far(dir).of(name).next().is_some());
}

/// Fails when the user's secret can be read anywhere in what a run leaves or says.
fn no_secret(s3: &S3, dir: &Path, said: &Finished) {
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "-e", &s3.secret, "-e", &s3.key]).arg(dir);
    let found = grep.output().expect("grep");
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
    assert!(!said.said().contains(&s3.secret) && !said.said().contains(&s3.key), "{}", said.said());
}

/// Fails when a run cannot be gone on from its copies alone, to the same bits (INV-7).
#[test]
fn a_drained_run_goes_on_from_its_copies_when_its_checkpoints_are_gone() {
    let mut s3 = S3::start();
    let lab = lab(&s3);
    let whole = finish(launch(&lab, &s3, "whole")).expect_code(0);
    // Another run of the same name must not mix its copies with these.
    let said = finish(launch(&lab, &s3, "run")).expect_code(2);
    assert!(
        said.stderr.contains("already holds the checkpoints of a run \"small\""),
        "{}",
        said.said()
    );
    assert!(!lab.run_dir("run").exists());
    lab.amend(|text| text.replace("/runs\"", "/drained\""));

    let child = launch(&lab, &s3, "run").spawn().expect("it starts");
    lab.until_committed("run", 5);
    signal(child.id(), "TERM");
    let said = wait(child).expect_code(3);
    let dir = lab.run_dir("run");
    no_secret(&s3, &dir, &said);
    let history = History::read(&dir);
    let last = history.last_checkpoint(&dir);
    let name = last.file_name().expect("a name").to_string_lossy().into_owned();
    let copied = history.of("checkpoint_copied").last().expect("a copy");
    let url = format!("s3://{}/drained/small/{name}", s3.bucket);
    assert_eq!(copied["url"], url.as_str(), "the run waits for its last copy");
    let latest: Value =
        serde_json::from_str(&s3.get("drained/small/latest.json")).expect("latest.json");
    assert_eq!(latest["checkpoint"], name.as_str());
    assert_eq!(latest["run_id"], "small");
    let objects = s3.list();
    for file in std::fs::read_dir(&last).expect("the checkpoint").flatten() {
        let object = format!("drained/small/{name}/{}", file.file_name().to_string_lossy());
        assert!(objects.contains(&object), "{object} is not among {objects:?}");
    }

    let mut fetch = coord(["fetch", &format!("s3://{}/drained/small", s3.bucket)]);
    s3.credentials(fetch.arg(lab.path("fetched")));
    let fetched = must(fetch);
    assert!(fetched.stdout.contains("all as the manifest says"), "{}", fetched.said());
    let weights = |dir: &Path| std::fs::read(dir.join("model.safetensors")).expect("weights");
    assert!(weights(&lab.run_dir("fetched")) == weights(&last), "the newest checkpoint's weights");

    std::fs::remove_dir_all(dir.join("checkpoints")).expect("removed");
    let mut resume = coord(["resume", &lab.path("run"), "--workers", "2"]);
    s3.credentials(&mut resume);
    let resumed = finish(resume).expect_code(0);
    assert!(
        resumed.stderr.contains(&format!("fetched {}", url.replace(&name, ""))),
        "{}",
        resumed.said()
    );
    let history = History::read(&dir);
    history.check(STEPS);
    assert_eq!(history.of("checkpoint_fetched").count(), 1);
    assert_eq!(history.of("checkpoint_passed_over").count(), 0);
    assert_eq!(history.of("rolled_back").count(), 0, "no step is lost");
    let whole_dir = lab.run_dir("whole");
    let same = history.last_weights(&dir) == History::read(&whole_dir).last_weights(&whole_dir);
    assert!(same, "other weights than those of an uninterrupted run: {}", whole.said());
}

/// Fails when a run depends on the store of its copies, or ends as if all had been copied.
#[test]
fn the_store_goes_down_during_the_run() {
    let s3 = S3::start();
    let lab = lab(&s3);
    let mut command = launch(&lab, &s3, "run");
    command.args(["--set", "checkpoint.timeout_s=20"]);
    let child = command.spawn().expect("it starts");
    let dir = lab.run_dir("run");
    until_event(&dir, "checkpoint_copied");
    drop(s3);
    let said = wait(child).expect_code(0);
    let history = History::read(&dir);
    history.check(STEPS);
    let failed =
        history.of("checkpoint_copy_failed").last().expect("what was not copied is on record");
    assert_eq!(failed["step"], STEPS, "{failed}");
    assert!(failed["error"].as_str().is_some_and(|error| error.len() > 20), "{failed}");
    assert!(said.stdout.contains("waiting for the copy of the checkpoint"), "{}", said.said());
}

/// Fails when a run finds out at its first checkpoint, days later, that its copies go nowhere.
#[test]
fn copies_that_cannot_be_made_are_refused_before_the_run() {
    let s3 = S3::start();
    let lab = lab(&s3);
    let refused = |change: &dyn Fn(&mut Command), words: &[&str]| {
        let mut command = launch(&lab, &s3, "run");
        change(&mut command);
        let said = finish(command).expect_code(2);
        for word in words {
            assert!(said.stderr.contains(word), "{word:?} is said: {}", said.said());
        }
        assert!(
            !said.said().contains(&s3.secret) && !said.said().contains(&s3.key),
            "{}",
            said.said()
        );
        assert!(!said.stderr.contains("panicked"), "{}", said.said());
        assert!(!lab.run_dir("run").exists(), "nothing half-written: {}", said.said());
    };
    let secret = "a-secret-that-is-not-the-right-one-0000000";
    refused(
        &|command| {
            command.env("AWS_SECRET_ACCESS_KEY", secret);
        },
        &["cannot be copied to s3://", "check AWS_ACCESS_KEY_ID", "leave checkpoint.copy_to out"],
    );
    refused(
        &|command| {
            command.args(["--set", "checkpoint.copy_to=s3://no-such-bucket/runs"]);
        },
        &["s3://no-such-bucket/runs", "make the bucket first"],
    );
    refused(
        &|command| {
            command.args(["--set", "checkpoint.endpoint=http://127.0.0.1:9"]);
        },
        &["check that the store is up and the endpoint"],
    );
    refused(
        &|command| {
            command.args(["--set", "checkpoint.copy_to=file:///no/such/folder"]);
        },
        &["there is no folder /no/such/folder"],
    );
}
