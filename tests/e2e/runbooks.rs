//! Every command of the runbooks, run against the trouble that its page is about.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command},
};

use medevo_tests::{
    commands::{Shown, commands, run},
    etcd::Etcd,
    history::History,
    lab::{Lab, checkout},
    process::{coord, is_stopped, processes_naming, signal, until, wait, worker_pid},
};

/// The commands of a page.
fn page(name: &str) -> Vec<Shown> {
    let path = checkout().join("ops/runbooks").join(format!("{name}.md"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for word in ["**You see**", "**It means**", "**Do not**", "**It is over**"] {
        assert!(text.contains(word), "{name} says {word}");
    }
    let shown = commands(&text, None);
    assert!(shown.len() >= 3, "{name} shows commands");
    shown
}

/// Runs a page's commands in the lab's folder.
fn follow(lab: &Lab, shown: &[Shown], names: &[(&str, &str)]) {
    let dir = lab.path("run");
    let mut all = vec![("RUN", dir.as_str()), ("path/to/slake", "data/target")];
    all.extend(names);
    for command in shown {
        let _ = run(command, &lab.run_dir(""), &all);
    }
}

/// A run of some dozen steps with `set`, two workers and a checkpoint every three steps, that has committed two.
fn under_way(lab: &Lab, set: &[&str]) -> Child {
    let mut command = lab.launch("run", 2);
    for setting in ["stage.adapt.steps=40", "cluster.collective_timeout_s=5"].iter().chain(set) {
        command.args(["--set", setting]);
    }
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 2);
    child
}

fn ended_well(lab: &Lab, run: &str) {
    let dir = lab.run_dir(run);
    let history = History::read(&dir);
    assert!(history.of("finished").last().is_some_and(|e| e.to_string().contains("Done")), "{run}");
    assert_eq!(processes_naming(&dir), Vec::<String>::new());
}

/// Fails when a page is missing here, or stands here and is gone.
#[test]
fn every_page_is_tested_and_listed() {
    let folder = checkout().join("ops/runbooks");
    let entries = std::fs::read_dir(&folder).expect("runbooks").flatten();
    let pages: BTreeSet<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "README")
        .collect();
    let tested = [
        "etcd-down",
        "full-disk",
        "hung-collective",
        "lost-node",
        "resume-elsewhere",
        "run-diverges",
    ];
    assert_eq!(pages, tested.map(str::to_owned).into(), "a page without a test is not trusted");
    let list = std::fs::read_to_string(folder.join("README.md")).expect("README.md");
    for name in tested {
        assert!(list.contains(&format!("({name}.md)")), "{name} is listed");
    }
}

#[test]
fn lost_node() {
    let lab = Lab::new();
    let child = under_way(&lab, &[]);
    signal(worker_pid(&lab.run_dir("run"), "w1"), "KILL");
    until("w1 is lost", || History::read_so_far(&lab.run_dir("run")).is_lost("w1"));
    follow(&lab, &page("lost-node"), &[]);
    let _ = wait(child).expect_code(3);
    ended_well(&lab, "run");
}

#[test]
fn hung_collective() {
    let lab = Lab::new();
    let child = under_way(&lab, &["cluster.lease_ttl_s=60"]);
    let pid = worker_pid(&lab.run_dir("run"), "w1");
    signal(pid, "STOP");
    until("it stands still", || is_stopped(pid));
    follow(&lab, &page("hung-collective"), &[("PID", &pid.to_string())]);
    let _ = wait(child).expect_code(3);
    ended_well(&lab, "run");
}

/// `tests/chaos/full_disk.rs` fills a disk for real; here the run has stopped, and there is room again.
#[test]
fn full_disk() {
    let lab = Lab::new();
    let child = under_way(&lab, &[]);
    signal(child.id(), "INT");
    let _ = wait(child).expect_code(3);
    follow(&lab, &page("full-disk"), &[]);
    ended_well(&lab, "run");
}

#[test]
fn etcd_down() {
    let lab = Lab::new();
    let mut etcd = Etcd::start(1);
    let endpoint = etcd.endpoints()[0].clone();
    let store = format!("store.endpoints=[\"{endpoint}\"]");
    let child = under_way(&lab, &["store.kind=etcd", &store, "store.patience_s=2"]);
    signal(child.id(), "INT");
    let _ = wait(child).expect_code(3);
    etcd.kill(0);
    let shown = page("etcd-down");
    let away = shown.iter().rposition(|command| command.code == 1).expect("while it is away") + 1;
    follow(&lab, &shown[..away], &[("ENDPOINT", &endpoint)]);
    etcd.restart(0);
    follow(&lab, &shown[away..], &[("ENDPOINT", &endpoint)]);
    ended_well(&lab, "run");
}

#[test]
fn run_diverges() {
    let lab = Lab::new();
    let child = under_way(&lab, &[]);
    std::fs::create_dir_all(lab.path("runs")).expect("a folder");
    until("a checkpoint", || checkpoint(&lab.run_dir("run")).is_some());
    let mut shown = page("run-diverges");
    let draining =
        shown.iter().position(|command| command.typed.contains("drain")).expect("it stops");
    let rest = shown.split_off(draining + 1);
    follow(&lab, &shown, &[]);
    let _ = wait(child).expect_code(3);
    let good = checkpoint(&lab.run_dir("run")).expect("a checkpoint");
    follow(&lab, &rest, &[("GOOD", &good)]);
    ended_well(&lab, "runs/again");
}

/// The newest checkpoint that is whole.
fn checkpoint(run_dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(run_dir.join("checkpoints")).ok()?.flatten();
    let whole = entries.map(|entry| entry.path()).filter(|dir| dir.join("manifest.json").is_file());
    whole.max().map(|dir| dir.to_string_lossy().into_owned())
}

#[test]
fn resume_elsewhere() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path("copies")).expect("a folder");
    let copies = format!("file://{}", lab.path("copies"));
    let child = under_way(&lab, &[&format!("checkpoint.copy_to={copies}")]);
    std::fs::create_dir_all(lab.path("runs")).expect("a folder");
    follow(&lab, &page("resume-elsewhere"), &[("COPIES", &format!("{copies}/small"))]);
    let _ = wait(child).expect_code(3);
    ended_well(&lab, "moved");
    ended_well(&lab, "runs/rescued");
}

/// The commands that the front page names in its text.
#[test]
fn the_front_page() {
    let lab = Lab::new();
    let _ = lab.run("run", 1);
    for command in
        [&["status"][..], &["logs", "--since", "10m"], &["doctor"], &["drain"], &["resume"]]
    {
        let mut typed: Command = coord([command[0], &lab.path("run")]);
        typed.args(&command[1..]);
        let said = wait(typed.spawn().expect("it starts")).expect_code(0);
        assert!(!said.stderr.contains("panicked"), "{}", said.said());
    }
}
