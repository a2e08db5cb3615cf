//! `launch`, `status`, `logs`, `drain` and `stop` on a cluster that a script plays: it records what it is asked and answers
//! from files.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use medevo_tests::{
    k8s::kubectl,
    lab::checkout,
    process::{Finished, coord, finish},
};
use serde_json::{Value, json};

/// Answers `get pods` and `get jobs` with files, builds with the real kustomize, writes down the rest.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/asked"
case "$*" in
  *" kustomize "*) exec REAL "$@" ;;
  *"get pods"*) cat "$dir/pods" ;;
  *"get jobs"*) cat "$dir/jobs" ;;
  *" exec "*) echo "state  rollout of step 7" ;;
  *" apply "*) cat >"$dir/applied"; echo "job.batch/example-coordinator created" ;;
  *" delete "*) echo '{"items": []}' >"$dir/jobs" ;;
  *"logs "*) echo "[pod/example-workers-1-abc/worker] joined"; [ ! -e "$dir/gone" ] ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"#;

struct Played(tempfile::TempDir);

impl Played {
    fn new(pods: &Value, jobs: &Value) -> Self {
        let played = Self(tempfile::tempdir().expect("a folder"));
        let script = SCRIPT.replace("REAL", &kubectl().to_string_lossy());
        fs::write(played.file("kubectl"), script).expect("written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(played.file("kubectl"), mode).expect("executable");
        for (name, items) in [("pods", pods), ("jobs", jobs)] {
            fs::write(played.file(name), json!({"items": items}).to_string()).expect("written");
        }
        played
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    fn run(&self, mut command: Command) -> Finished {
        finish({
            command.env("KUBECTL", self.file("kubectl"));
            command
        })
    }

    fn launch(&self, more: &[&str]) -> Finished {
        let run_file = checkout().join("k8s/overlays/single-node/run.toml");
        let mut command = coord(["launch", &run_file.to_string_lossy(), "--on", "k8s"]);
        command.args(more);
        self.run(command)
    }
}

fn pod(name: &str, component: &str, status: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {"nodeName": "node-a"}, "status": status,
    })
}

fn job(name: &str, ended: bool) -> Value {
    let conditions = if ended {
        json!([{"type": "Failed", "status": "True", "message": "exit code 2"}])
    } else {
        json!([])
    };
    json!({"metadata": {"name": name}, "status": {"conditions": conditions}})
}

const SELECTOR: &str = "app.kubernetes.io/name=medevo,app.kubernetes.io/instance=example";

#[test]
fn status_shows_pods_and_asks_the_coordinator() {
    let running = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let pending = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}
    ]});
    let pods = json!([
        pod("example-coordinator-0-abc", "coordinator", running),
        pod("example-workers-0-def", "worker", pending),
    ]);
    let played = Played::new(&pods, &json!([job("example-coordinator", false)]));
    let said = played.run(coord(["status", "k8s:medevo/example"])).expect_code(0);
    for word in
        ["example-coordinator-0-abc", "Ready", "Insufficient nvidia.com/gpu", "rollout of step 7"]
    {
        assert!(said.stdout.contains(word), "{word}: {}", said.said());
    }
    let asked = played.read("asked");
    assert!(
        asked.contains(&format!("--namespace medevo get pods --selector {SELECTOR}")),
        "{asked}"
    );
    let exec = "exec example-coordinator-0-abc -c coordinator -- medevo-coord status /runs/example";
    assert!(asked.contains(exec), "{asked}");

    let said = played.run(coord(["status", "k8s:medevo/example", "--json"])).expect_code(0);
    assert_eq!(said.stdout, "state  rollout of step 7\n", "only what the coordinator says");
}

#[test]
fn a_run_that_is_not_there_is_bad_input() {
    let played = Played::new(&json!([]), &json!([]));
    let said = played.run(coord(["status", "k8s:example"])).expect_code(2);
    assert!(
        said.stderr.contains("k8s:example") && said.stderr.contains("--on k8s"),
        "{}",
        said.said()
    );
    let said = played.run(coord(["status", "k8s:Example"])).expect_code(2);
    assert!(said.stderr.contains("k8s:NAMESPACE/RUN"), "{}", said.said());
}

/// Fails when another run's lines are shown, or when a question that the cluster cannot answer is passed on to it.
#[test]
fn logs_are_the_runs_or_one_workers() {
    let played = Played::new(&json!([]), &json!([]));
    let said = played.run(coord(["logs", "k8s:medevo/example", "--since", "10m"])).expect_code(0);
    assert!(said.stdout.contains("[pod/example-workers-1-abc/worker] joined"), "{}", said.said());
    let said = played.run(coord(["logs", "k8s:example", "--worker", "w-1", "--follow"]));
    let _ = said.expect_code(0);
    let said = played.run(coord(["logs", "k8s:example", "--worker", "coordinator"]));
    let _ = said.expect_code(0);
    let asked = played.read("asked");
    let [all, one, leader] = asked.lines().collect::<Vec<_>>()[..] else {
        panic!("three questions: {asked}")
    };
    assert!(all.starts_with(&format!("--namespace medevo logs --selector {SELECTOR} ")), "{all}");
    assert!(all.contains("--prefix") && all.contains("--since-time=20"), "{all}");
    assert!(
        one.starts_with(&format!(
            "logs --selector {SELECTOR},app.kubernetes.io/component=worker,\
             batch.kubernetes.io/job-completion-index=1 "
        )),
        "{one}"
    );
    assert!(one.ends_with("--follow"), "{one}");
    assert!(
        leader.contains(&format!("{SELECTOR},app.kubernetes.io/component=coordinator ")),
        "{leader}"
    );

    let said = played.run(coord(["logs", "k8s:example", "--worker", "n1-0"])).expect_code(2);
    assert!(said.stderr.contains("n1-0") && said.stderr.contains("w-0"), "{}", said.said());
    fs::write(played.file("gone"), "").expect("written");
    let _ = played.run(coord(["logs", "k8s:example"])).expect_code(1);
}

/// Fails when the workers are taken away before the coordinator has its checkpoint, or when the pods' grace is cut short.
#[test]
fn a_run_is_stopped_coordinator_first_and_waited_for() {
    let graceful = |name: &str| {
        let mut job = job(name, false);
        job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(600);
        job
    };
    for verb in ["drain", "stop"] {
        let jobs = json!([graceful("example-workers"), graceful("example-coordinator")]);
        let played = Played::new(&json!([]), &jobs);
        let said = played.run(coord([verb, "k8s:medevo/example"])).expect_code(0);
        assert!(said.stdout.contains("launch RUN.toml --on k8s"), "{}", said.said());
        let asked = played.read("asked");
        let deleted: Vec<&str> = asked.lines().filter(|line| line.contains(" delete ")).collect();
        let delete = |kind: &str| {
            format!(
                "--namespace medevo delete job example-{kind} --cascade=foreground --wait=true --timeout=660s"
            )
        };
        assert_eq!(deleted, [delete("coordinator"), delete("workers")], "{verb}");

        let said = played.run(coord([verb, "k8s:medevo/example"])).expect_code(2);
        assert!(said.stderr.contains("k8s:medevo/example"), "there is none: {}", said.said());
    }
    // What has ended is left as it is: its pods' logs would go with it.
    let ended = json!([job("example-coordinator", true), job("example-workers", true)]);
    let played = Played::new(&json!([]), &ended);
    let said = played.run(coord(["stop", "k8s:medevo/example"])).expect_code(0);
    assert!(said.stdout.contains("nothing to stop"), "{}", said.said());
    assert!(!played.read("asked").contains(" delete "), "{}", played.read("asked"));
    for (arguments, word) in [
        (["drain", "k8s:example", "--no-wait"], "--no-wait"),
        (["stop", "k8s:example", "--now"], "kubectl delete pods --force"),
        (["status", "k8s:example", "--watch"], "watch medevo-coord status k8s:example"),
    ] {
        let played = Played::new(&json!([]), &json!([job("example-coordinator", false)]));
        let said = played.run(coord(arguments)).expect_code(2);
        assert!(said.stderr.contains(word), "{}", said.said());
        assert_eq!(played.read("asked"), "", "nothing was asked of the cluster");
    }
}

#[test]
fn launch_applies_what_dry_run_prints() {
    let played = Played::new(&json!([]), &json!([]));
    let printed = played.launch(&["--dry-run"]).expect_code(0).stdout;
    assert!(!played.read("asked").contains("apply"), "a dry run changes nothing");
    let said = played.launch(&[]).expect_code(0);
    assert_eq!(played.read("applied").trim_end(), printed.trim_end());
    assert!(said.stdout.contains("medevo-coord status k8s:medevo/example"), "{}", said.said());
}

#[test]
fn a_run_that_goes_on_is_left_alone_and_an_ended_one_goes_on() {
    let played = Played::new(&json!([]), &json!([job("example-coordinator", false)]));
    let said = played.launch(&[]).expect_code(2);
    assert!(said.stderr.contains("k8s:medevo/example"), "{}", said.said());
    let asked = played.read("asked");
    assert!(!asked.contains("apply") && !asked.contains("delete"), "{asked}");

    let ended = json!([job("example-coordinator", true), job("example-workers", true)]);
    let played = Played::new(&json!([]), &ended);
    let _ = played.launch(&[]).expect_code(0);
    let asked = played.read("asked");
    let (deleted, applied) = (asked.find(" delete jobs"), asked.find(" apply "));
    assert!(deleted.is_some() && deleted < applied, "{asked}");
}

#[test]
fn waiting_ends_with_the_run_and_its_exit_code() {
    let done = |code: i64| {
        let terminated = json!({"exitCode": code, "finishedAt": "2026-03-01T12:00:00Z"});
        let status = json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": terminated}}]});
        json!([pod("example-coordinator-0-abc", "coordinator", status)])
    };
    for code in [0, 1, 3, 5] {
        let played = Played::new(&done(code), &json!([]));
        // The Job that was applied has ended by the time that somebody looks.
        let ended = json!({"items": [job("example-coordinator", true)]}).to_string();
        fs::write(played.file("ended"), ended).expect("written");
        let script = played.read("kubectl").replace(
            "cat >\"$dir/applied\"",
            "cat >\"$dir/applied\"; cp \"$dir/ended\" \"$dir/jobs\"",
        );
        fs::write(played.file("kubectl"), script).expect("written");
        let _ = played.launch(&["--wait"]).expect_code(i32::try_from(code).expect("small"));
    }
}
