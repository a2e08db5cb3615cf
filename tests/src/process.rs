//! The two binaries as a user runs them, every wait with a deadline.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long any one process of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A binary of this workspace, from the folder that the test itself was built into.
///
/// # Panics
/// When it is not there: `make test` builds it first.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test knows its own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `make test`", path.display());
    path
}

/// `medevo-coord` with these arguments.
#[must_use]
pub fn coord<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(binary("medevo-coord"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `medevo-worker` with these arguments.
#[must_use]
pub fn worker<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(binary("medevo-worker"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same command, with SIGHUP heeded even where whoever runs the tests has it ignored (`nohup make test`).
#[must_use]
pub fn heeding_hangup(command: &Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wrapped
}

/// What a finished process left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Both streams, for messages of failed assertions.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }

    /// Fails the test unless the exit code is `code`.
    ///
    /// # Panics
    /// When it is another.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.said());
        self
    }
}

/// Runs to the end, or kills at the deadline and fails.
///
/// # Panics
/// When it cannot be started or does not end in time.
#[must_use]
pub fn finish(mut command: Command) -> Finished {
    let child = command.spawn().expect("the binary starts");
    wait(child)
}

/// Waits for a started process, or kills it at the deadline and fails.
///
/// # Panics
/// When it does not end in time.
#[must_use]
pub fn wait(mut child: Child) -> Finished {
    // The streams are drained by threads of their own: a full pipe must not stop the process.
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("a child can be killed");
            let status = child.wait().expect("a killed child ends");
            let finished = Finished { status, stdout: join(out), stderr: join(err) };
            panic!("did not end within {PATIENCE:?}: {}", finished.said());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Finished { status, stdout: join(out), stderr: join(err) }
}

type Reader = Option<std::thread::JoinHandle<String>>;

fn drain(stream: Option<impl std::io::Read + Send + 'static>) -> Reader {
    stream.map(|mut s| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = s.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}

fn join(reader: Reader) -> String {
    reader.map_or_else(String::new, |r| r.join().expect("a reader does not panic"))
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Live processes of this workspace that name `path` in their arguments or write to a file under it, as
/// a worker writes to its log: process id and command line. Zombies have neither.
fn processes(path: &Path) -> Vec<(u32, String)> {
    let needle = path.to_string_lossy().into_owned();
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let writes =
            std::fs::read_link(entry.path().join("fd/2")).is_ok_and(|f| f.starts_with(path));
        if line.contains("medevo-") && (line.contains(&needle) || writes) {
            found.push((pid, line));
        }
    }
    found
}

/// Live processes of the run in `path`, for messages.
#[must_use]
pub fn processes_naming(path: &Path) -> Vec<String> {
    processes(path).into_iter().map(|(pid, line)| format!("{pid}: {line}")).collect()
}

/// The process id of a live worker of the run in `run_dir`.
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn worker_pid(run_dir: &Path, worker: &str) -> u32 {
    let log = run_dir.join(format!("logs/worker-{worker}.log"));
    let found = processes(&log);
    found.first().unwrap_or_else(|| panic!("worker {worker} is not running")).0
}

/// Whether a process stands still after SIGSTOP.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may itself hold any character; the state follows it.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Sends a signal ("STOP", "CONT") to a process.
///
/// # Panics
/// When it cannot be sent.
pub fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &pid.to_string()]);
    let _ = must(kill);
}

/// Output of a command that must succeed.
///
/// # Panics
/// When it does not.
pub fn must(command: Command) -> Finished {
    finish(command).expect_code(0)
}
