//! `doctor`: says what is missing before a run is started, here and between machines.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use medevo_tests::{
    etcd::Etcd,
    lab::Lab,
    process::{Finished, binary, coord, finish, must, until, wait},
};
use serde_json::Value;

/// `doctor run.toml` with settings, as JSON.
fn doctor(lab: &Lab, set: &[&str], code: i32) -> Vec<Value> {
    let mut command = coord(["doctor", &lab.path("run.toml"), "--json"]);
    command.args(["--run-dir", &lab.path("run")]).env("RUN_PASSWORD", "half");
    for setting in set {
        command.args(["--set", setting]);
    }
    let said = finish(command).expect_code(code);
    serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {}", said.said()))
}

fn finding<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check} is looked at: {findings:?}"))
}

/// Fails when a machine on which the run would start is found wanting, when a line is missing, or when the doctor leaves
/// something where the run will be.
#[test]
fn a_run_that_can_start_is_found_healthy() {
    let lab = Lab::new();
    let findings = doctor(&lab, &[], 0);
    for check in [
        "worker",
        "libtorch",
        "GPUs",
        "model",
        "data.target",
        "memory",
        "run directory",
        "room",
        "store",
        "listen",
    ] {
        let found = finding(&findings, check);
        assert!(found["grade"] != "failed", "{found}");
    }
    assert!(!lab.run_dir("run").exists(), "nothing was made");
    let bare = must(coord(["doctor"]));
    assert!(bare.stdout.contains("libtorch"), "{}", bare.said());
    let _ = lab.run("run", 1);
    let run_dir = must(coord(["doctor", &lab.path("run")]));
    assert!(run_dir.stdout.contains("no coordinator has it open"), "{}", run_dir.said());
}

/// Fails when something in the way of a run is not named, all at once, with what to do.
#[test]
fn what_is_in_the_way_is_named_with_what_to_do() {
    let lab = Lab::new();
    std::fs::remove_file(lab.path("model/tokenizer.json")).expect("removed");
    std::fs::remove_file(lab.an_image()).expect("removed");
    let set = [
        "cluster.device=cuda",
        "cluster.collective_address=192.0.2.1",
        "checkpoint.copy_to=file:///proc/no/copies",
    ];
    let findings = doctor(&lab, &set, 1);
    for (check, word) in [
        ("model", "tokenizer.json"),
        ("data.target", "problem"),
        ("collectives", "192.0.2.1"),
        ("copies", "/proc/no/copies"),
    ] {
        let found = finding(&findings, check);
        assert_eq!(found["grade"], "failed", "{found}");
        assert!(found["found"].to_string().contains(word), "{word}: {found}");
        assert!(found["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{found}");
    }
    // Where there is a GPU it is no problem to want one.
    let gpus = findings.iter().any(|finding| finding["check"] == "cuda:0");
    assert!(gpus || finding(&findings, "GPUs")["grade"] == "failed", "{findings:?}");
}

/// Fails when rights that are missing in etcd are found out only by the run.
#[test]
fn a_right_that_is_missing_in_etcd_is_named() {
    let lab = Lab::new();
    let etcd = Etcd::start(1);
    let endpoint = format!("store.endpoints=[\"{}\"]", etcd.endpoints()[0]);
    let store = ["store.kind=etcd", &endpoint];
    assert_eq!(finding(&doctor(&lab, &store, 0), "store")["grade"], "ok");
    for args in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "half"],
        &["role", "grant-permission", "half", "--prefix=true", "read", "/"],
        &["role", "grant-permission", "half", "--prefix=true", "read", "medevo"],
        &["user", "add", "run:half"],
        &["user", "grant-role", "run", "half"],
        &["auth", "enable"],
    ] {
        let _ = etcd.ctl(args);
    }
    let with_half = [&store[..], &["store.user=run", "store.password_env=RUN_PASSWORD"]].concat();
    let findings = doctor(&lab, &with_half, 1);
    let found = finding(&findings, "store");
    assert_eq!(found["grade"], "failed");
    assert!(found["found"].to_string().contains("may not write"), "{found}");
    drop(etcd);
    let gone = doctor(&lab, &[&store[..], &["store.patience_s=2"]].concat(), 1);
    assert_eq!(finding(&gone, "store")["grade"], "failed");
}

/// `doctor --nodes 1` with `more`, and what `medevo-worker probe` as another machine says to the directory it names.
fn meet(lab: &Lab, more: &[&str], probe: impl FnOnce(&Path) -> Option<Command>) -> Finished {
    let mut command = coord(["doctor", &lab.path("run.toml"), "--nodes", "1"]);
    command.args(["--run-dir", &lab.path("run"), "--address", "127.0.0.1"]);
    command.args(["--set", "cluster.listen=0.0.0.0:0", "--set", "cluster.trusted_network=true"]);
    let child = command.args(more).spawn().expect("doctor starts");
    let mut dir = None;
    until("the doctor waits", || {
        let entries = std::fs::read_dir(lab.run_dir("")).expect("the lab").flatten();
        let found = entries.map(|entry| entry.path()).find(|path| {
            path.to_string_lossy().contains("medevo-doctor-") && path.join("meeting.json").exists()
        });
        dir = found;
        dir.is_some()
    });
    let dir = dir.expect("a directory");
    if let Some(probe) = probe(&dir) {
        let _ = must(probe);
    }
    let said = wait(child);
    assert!(!dir.exists(), "the meeting is over: {}", said.said());
    said
}

/// Fails when a machine that meets the doctor is not measured, or one that does not come is not missed.
#[test]
fn machines_meet_through_the_shared_file_system() {
    let lab = Lab::new();
    let other = |dir: &Path| {
        let worker = binary("medevo-worker").display().to_string();
        let mut command = Command::new("unshare");
        let line = format!("hostname other && exec {worker} probe --meet {}", dir.display());
        command.args(["--uts", "sh", "-c", &line]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Another machine's name takes root; without it, it is this machine twice.
        let may = Command::new("unshare").args(["--uts", "true"]).output();
        if may.is_ok_and(|output| output.status.success()) {
            return Some(command);
        }
        let mut command = Command::new(worker);
        command.args(["probe", "--meet"]).arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(command)
    };
    let said = meet(&lab, &[], other).expect_code(0);
    for words in
        ["met here, through a shared file system", " clock", " network", "MB/s from 127.0.0.1"]
    {
        assert!(said.stdout.contains(words), "{words}: {}", said.said());
    }
    let nobody = meet(&lab, &["--timeout", "1"], |_| None).expect_code(1);
    assert!(nobody.stdout.contains("0 of 1 came"), "{}", nobody.said());
}

/// Fails when a machine that does not see the directory, or another meeting's, is taken for one that does.
#[test]
fn a_machine_without_the_shared_file_system_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = Command::new(binary("medevo-worker"));
    probe.args(["probe", "--meet"]).arg(folder.path());
    probe.stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(probe);
    assert!(!said.status.success() && said.stderr.contains("shares"), "{}", said.said());
}
