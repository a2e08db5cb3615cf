//! What the pods run, as processes here: the manifests' own commands with this machine's paths in them.

use std::{path::Path, process::Command};

use medevo_tests::{
    cluster::{COORDINATOR, Cluster},
    history::History,
    k8s::{Objects, build, jobs, pod},
    lab::{Lab, STEPS, checkout},
    process::{coord, must, until, worker},
};
use serde_json::Value;

/// The command of a Job's pod number `index`.
fn command(objects: &Objects, job: &str, index: usize, here: &[(&str, &str)]) -> Command {
    let container = &objects.one("Job", job)["spec"]["template"]["spec"]["containers"][0];
    let mut command = if job.ends_with("workers") { worker([]) } else { coord([]) };
    for arg in container["args"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut arg = arg.replace("$(JOB_COMPLETION_INDEX)", &index.to_string());
        for (there, here) in here {
            arg = arg.replace(there, here);
        }
        assert!(!arg.contains("$("), "{arg}: nothing is left out");
        command.arg(arg);
    }
    command
}

/// Fails when the manifests' commands do not work, when a worker that is needed again ends as if the run were over, or
/// when the probes' files are not kept.
#[test]
fn a_run_is_stopped_by_sigterm_and_goes_on_with_the_same_commands() {
    let lab = Lab::new();
    must(coord(["certs", "init", &lab.path("certs")]));
    let objects = build(&checkout().join("k8s/overlays/single-node"));
    let mut cluster = Cluster::new(&lab, "run");
    let port = cluster.address().rsplit_once(':').expect("a port").1.to_owned();
    let (run_file, dir) = (lab.path("run.toml"), cluster.dir().to_string_lossy().into_owned());
    let (certificates, listen) = (lab.path("certs"), format!("0.0.0.0:{port}"));
    let name = "$(RUN)-coordinator-0.$(RUN)-coordinator.$(NAMESPACE).svc";
    let here = [
        ("/config/run.toml", run_file.as_str()),
        ("/runs/$(RUN)", &dir),
        ("/certificates", &certificates),
        ("0.0.0.0:7000", &listen),
        ("0.0.0.0:7080", "127.0.0.1:0"),
        (name, "127.0.0.1"),
        ("$(POD_IP)", "127.0.0.1"),
        ("cuda:0", "cpu"),
    ];
    let both = "grace_s = 20\nmax_workers = 2\n";
    lab.amend(|text| text.replace("grace_s = 3\n", both) + "\n[engine]\nthreads = 1\n");
    let alive = |who: &str| lab.path(&format!("alive-{who}"));
    let start = |cluster: &mut Cluster, fault: &str| {
        let mut leader = command(&objects, "example-coordinator", 0, &here);
        leader.env("MEDEVO_COORD_FAULT", fault).env("MEDEVO_ALIVE", alive("coordinator"));
        if fault.is_empty() {
            leader.env_remove("MEDEVO_COORD_FAULT");
        }
        cluster.start(COORDINATOR, leader);
        for index in 0..2 {
            let name = format!("w-{index}");
            let mut pod = command(&objects, "example-workers", index, &here);
            pod.env("MEDEVO_ALIVE", alive(&name));
            cluster.start(&name, pod);
        }
    };
    start(&mut cluster, "stop:updating@6");
    cluster.until_stopped(COORDINATOR);
    for who in ["coordinator", "w-0", "w-1"] {
        assert!(Path::new(&alive(who)).exists(), "{who} says that it is alive");
        std::fs::remove_file(alive(who)).expect("removed");
    }
    // As the kubelet does.
    cluster.signal(COORDINATOR, "TERM");
    cluster.signal(COORDINATOR, "CONT");
    cluster.expect_end(COORDINATOR, 3);
    for worker in ["w-0", "w-1"] {
        cluster.expect_end(worker, 3);
    }
    start(&mut cluster, "");
    until("the probes' files are there again", || {
        ["coordinator", "w-0", "w-1"].iter().all(|who| Path::new(&alive(who)).exists())
    });
    for process in [COORDINATOR, "w-0", "w-1"] {
        cluster.expect_end(process, 0);
    }
    History::read(cluster.dir()).check(STEPS);
}

/// The probes' own commands, on files of several ages.
#[test]
fn probes_tell_fresh_from_stale() {
    let objects = build(&checkout().join("k8s/overlays/single-node"));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("alive");
    let ask = |job: &Value, probe: &str| {
        let command = &pod(job)["containers"][0][probe]["exec"]["command"];
        let [shell, flag, line] = [0, 1, 2].map(|i| command[i].as_str().expect("text"));
        let line = line.replace("/tmp/alive", &file.to_string_lossy());
        Command::new(shell).args([flag, &line]).status().expect("a shell").success()
    };
    let [coordinator, workers] = jobs(&objects);
    let answers = || {
        [coordinator, workers].map(|job| [ask(job, "livenessProbe"), ask(job, "readinessProbe")])
    };
    assert_eq!(answers(), [[true, false], [true, false]], "still starting: live, not ready");
    let aged = |minutes: &str| {
        let touched = Command::new("touch").args(["-d", minutes]).arg(&file).status();
        assert!(touched.expect("touch").success());
    };
    aged("now");
    assert_eq!(answers(), [[true, true], [true, true]], "fresh");
    aged("-3 minutes");
    assert_eq!(answers(), [[true, false], [true, true]], "a store that is away, a long order");
    aged("-10 minutes");
    assert_eq!(answers(), [[false, false], [true, true]], "the coordinator hangs");
    aged("-40 minutes");
    assert_eq!(answers(), [[false, false], [false, true]], "the worker hangs, too");
}
