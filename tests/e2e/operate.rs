//! What an operator does to a run that is under way: watch it, read its logs, drain it, stop it.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use medevo_tests::{
    cluster::{COORDINATOR, Cluster, STANDBY},
    history::History,
    lab::{Lab, STEPS},
    process::{
        binary, coord, finish, heeding_hangup, is_stopped, must, processes_naming, signal, until,
        wait, worker_pid,
    },
    traces::{half_written, unlocked},
};

/// A run of a thousand steps that has committed some.
fn under_way(lab: &Lab, workers: usize) -> Child {
    let mut command = lab.launch("run", workers);
    command.args(["--set", "stage.adapt.steps=1000"]);
    let child = command.spawn().expect("the coordinator starts");
    lab.until_committed("run", 2);
    child
}

/// Fails when `drain` returns before the run has stopped, loses its place, or stops a later `resume` too; or when
/// `status --watch` does not end with the run, with its exit code.
#[test]
fn drained_by_a_command_then_resumed_and_stopped_at_once() {
    let lab = Lab::new();
    let (dir, run) = (lab.run_dir("run"), lab.path("run"));
    let child = under_way(&lab, 2);
    let watch = coord(["status", &run, "--watch", "0.2"]).spawn().expect("status starts");
    let drained = must(coord(["drain", &run]));
    assert!(drained.stdout.contains("drained: a request of process"), "{}", drained.said());
    let left = processes_naming(&dir);
    assert!(left.iter().all(|line| line.contains("--watch")), "left when drain returns: {left:?}");
    let said = wait(child).expect_code(3);
    let watched = wait(watch).expect_code(3);
    assert!(watched.stdout.lines().count() > 1, "a line each time: {}", watched.said());
    let history = History::read(&dir);
    let reached = *history.committed().keys().max().expect("steps were committed");
    let published = history.of("checkpoint_published").last().expect("a checkpoint");
    assert_eq!(published["step"], reached, "{}", said.said());
    let again = must(coord(["drain", &run]));
    assert!(again.stdout.contains("nothing to stop"), "{}", again.said());

    let mut command = coord(["resume", &run, "--workers", "1"]);
    command.stdout(Stdio::piped());
    let resumed = command.spawn().expect("resume starts");
    lab.until_committed("run", usize::try_from(reached).expect("few") + 2);
    let stopped = must(coord(["stop", &run, "--now"]));
    assert!(stopped.stdout.contains("stopped at once"), "{}", stopped.said());
    let _ = wait(resumed).expect_code(5);
    let _ = finish(coord(["status", &run, "--watch"])).expect_code(5);
    assert_eq!(processes_naming(&dir), Vec::<String>::new());
    assert_eq!(half_written(&dir), Vec::<String>::new());
}

/// Fails when a coordinator that heeds nothing outlives `stop --now`, or its workers outlive it.
#[test]
fn a_coordinator_that_stands_still_is_killed_with_its_workers() {
    let lab = Lab::new();
    let dir = lab.run_dir("run");
    let child = under_way(&lab, 1);
    let pid = child.id();
    signal(pid, "STOP");
    until("it stands still", || is_stopped(pid));
    // Reaped as soon as it dies, or it would stay as a zombie of ours.
    let reaper = std::thread::spawn(move || wait(child));
    let stopped = must(coord(["stop", &lab.path("run"), "--now"]));
    assert!(stopped.stdout.contains("was killed"), "{}", stopped.said());
    assert_eq!(reaper.join().expect("it ends").status.code(), None, "by a signal");
    until("its worker goes with it", || processes_naming(&dir).is_empty());
    assert!(unlocked(&dir));
}

/// Fails when a terminal that is closed ends a run without a checkpoint, or a line that nobody can read any more
/// panics.
#[test]
fn a_closed_terminal_drains() {
    let lab = Lab::new();
    let mut command = lab.launch("run", 1);
    command.args(["--set", "stage.adapt.steps=1000"]);
    let mut command = heeding_hangup(&command);
    let mut child =
        command.env("RUST_LOG", "info").process_group(0).spawn().expect("the coordinator starts");
    lab.until_committed("run", 2);
    drop((child.stdout.take(), child.stderr.take()));
    signal(child.id(), "HUP");
    let _ = wait(child).expect_code(3);
    let history = History::read(&lab.run_dir("run"));
    let reached = history.committed().into_keys().max();
    let published = history.of("checkpoint_published").last().expect("a checkpoint");
    assert_eq!(published["step"].as_u64(), reached);
}

/// Fails when `nohup` does not keep a run alive.
#[test]
fn a_run_under_nohup_goes_on() {
    let lab = Lab::new();
    let launch = lab.launch("run", 1);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(launch.get_program());
    shell.args(launch.get_args()).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = shell.spawn().expect("a shell starts");
    lab.until_committed("run", 2);
    signal(child.id(), "HUP");
    let _ = wait(child).expect_code(0);
    History::read(&lab.run_dir("run")).check(STEPS);
}

/// Fails when a worker that stands still holds up the end of a run that was interrupted, or outlives it.
#[test]
fn a_worker_that_stands_still_goes_with_an_interrupted_run() {
    let lab = Lab::new();
    let dir = lab.run_dir("run");
    let child = under_way(&lab, 2);
    let pid = worker_pid(&dir, "w1");
    signal(pid, "STOP");
    until("it stands still", || is_stopped(pid));
    signal(child.id(), "INT");
    let _ = wait(child).expect_code(3);
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");
}

/// Fails when a standby takes over a run that was drained by an operator.
#[test]
fn a_standby_leaves_with_a_drained_run() {
    let lab = Lab::new();
    let mut cluster = Cluster::new(&lab, "run");
    cluster.launch(&lab, 1, &["cluster.workers=1", "stage.adapt.steps=1000"], "");
    cluster.join("w0", "");
    cluster.until_committed(2);
    cluster.stand_by();
    until("it stands by", || cluster.said().contains("standing by"));
    let _ = must(coord(["drain", &lab.path("run")]));
    for name in [COORDINATOR, STANDBY] {
        cluster.expect_end(name, 3);
    }
    cluster.expect_nothing_left();
}

/// Fails when the logs of a run are not whole, out of order, or do not end with the run.
#[test]
fn logs_are_read_as_one_and_followed_to_the_end() {
    let lab = Lab::new();
    let run = lab.path("run");
    let child = under_way(&lab, 2);
    let follow = coord(["logs", &run, "--follow"]).spawn().expect("logs starts");
    let _ = must(coord(["stop", &run]));
    let _ = wait(child).expect_code(3);
    let followed = wait(follow).expect_code(0);
    let all = must(coord(["logs", &run]));
    assert_eq!(followed.stdout.lines().count(), all.stdout.lines().count(), "followed to the end");
    for source in ["w0 ", "w1 "] {
        assert!(all.stdout.lines().any(|line| line.starts_with(source)), "{}", all.said());
    }
    let stamps: Vec<&str> =
        all.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    // To the second: two threads of one process may swap lines within microseconds.
    let seconds: Vec<&str> =
        stamps.iter().filter(|stamp| stamp.ends_with('Z')).map(|stamp| &stamp[..19]).collect();
    assert!(seconds.len() > 3 && seconds.is_sorted(), "in the order of time: {seconds:?}");
    let one = must(coord(["logs", &run, "--worker", "w1"]));
    assert!(one.stdout.lines().all(|line| line.starts_with("w1 ")), "{}", one.said());
    let none = must(coord(["logs", &run, "--since", "2000-01-01"]));
    assert_eq!(none.stdout, all.stdout);
    let nobody = finish(coord(["logs", &run, "--worker", "w9"])).expect_code(2);
    assert!(nobody.stderr.contains("w0"), "who is there is named: {}", nobody.said());
}

/// Fails when what is asked of a run that is none is not refused by name.
#[test]
fn what_is_no_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("none").to_string_lossy().into_owned();
    for command in ["drain", "stop", "logs", "status"] {
        let said = finish(coord([command, &nowhere])).expect_code(2);
        assert!(said.stderr.contains("none"), "{command}: {}", said.said());
    }
}

/// The subcommands that `--help` lists.
fn subcommands(program: &str) -> Vec<String> {
    let mut help = Command::new(binary(program));
    help.arg("--help").stdout(Stdio::piped());
    let help = must(help).stdout;
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// Fails when a subcommand has no man page, or a shell cannot load or use the completions.
#[test]
fn every_subcommand_has_a_man_page_and_shells_complete_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (program, man) in [("medevo-coord", &["docs", "man"][..]), ("medevo-worker", &["man"][..])]
    {
        let mut pages = Command::new(binary(program));
        let _ = must({
            pages.args(man).arg(at(program));
            pages
        });
        let names = subcommands(program);
        assert!(names.len() > 5, "{program}: {names:?}");
        for name in names.iter().filter(|name| *name != "help") {
            let page = at(program).join(format!("{program}-{name}.1"));
            let text = std::fs::read_to_string(&page).unwrap_or_default();
            assert!(text.contains(".SH SYNOPSIS"), "{} is a page", page.display());
        }
        let script = at(&format!("{program}.bash"));
        let file = OpenOptions::new().create(true).append(true).open(&script).expect("a file");
        let mut completions = Command::new(binary(program));
        completions.args(["completions", "bash"]).stdout(file);
        let _ = must(completions);
        let mut bash = Command::new("bash");
        let line = format!(
            "source {0}; COMP_WORDS=({1} {2}); COMP_CWORD=1; $(complete -p {1} | sed 's/.*-F \\([^ ]*\\).*/\\1/') \
             {1} {2} {1}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            program,
            &names[0][..2]
        );
        bash.args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let offered = must(bash);
        assert!(offered.stdout.lines().any(|word| word == names[0]), "{}", offered.said());
        let mut text = String::new();
        let mut read = std::fs::File::open(&script).expect("the script");
        read.read_to_string(&mut text).expect("text");
        assert!(!text.contains("panicked"));
    }
    for shell in ["zsh", "fish"] {
        assert!(must(coord(["completions", shell])).stdout.contains("drain"), "{shell}");
    }
}
