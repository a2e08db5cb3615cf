//! Worker processes of this machine: started, watched, stopped and reaped.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use medevo_types::WorkerId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// How long workers have to leave after they were told to stop.
const LEAVE: Duration = Duration::from_secs(15);
/// How long they have after SIGTERM.
const TERMINATE: Duration = Duration::from_secs(5);
/// How long the reaping of a killed process may take.
const REAP: Duration = Duration::from_secs(10);
/// Most bytes of a log that are quoted.
const TAIL_BYTES: u64 = 4096;
/// Most lines of a log that are quoted.
const TAIL_LINES: usize = 6;
/// What the coordinator alone needs, for the copies of checkpoints.
const NOT_FOR_WORKERS: [&str; 3] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// How to start one worker.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its join token, for the environment only: arguments can be seen by every user of the machine.
    pub token: String,
}

/// A worker's process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Which worker.
    pub worker: WorkerId,
    /// How it ended, for people ("exit status: 1", "signal: 9 (SIGKILL)").
    pub how: String,
    /// Whether it ended well.
    pub success: bool,
    /// The last lines that it wrote.
    pub last_lines: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Run,
    Terminate,
    Kill,
}

/// The children. Dropped, they are killed.
pub struct Children {
    watched: JoinSet<Ended>,
    stop: watch::Sender<Stop>,
}

impl Default for Children {
    fn default() -> Self {
        Self { watched: JoinSet::new(), stop: watch::Sender::new(Stop::Run) }
    }
}

impl Children {
    /// Starts a worker; what it writes goes to `log`, after what is there. It is in a process group of its
    /// own, so that Ctrl-C in a terminal reaches the coordinator alone, which then drains.
    ///
    /// Call this from the main thread: `--die-with-parent` follows the thread that started the worker.
    ///
    /// # Errors
    /// When the log cannot be written or the binary cannot be started.
    pub fn start(
        &mut self,
        worker: WorkerId,
        command: &WorkerCommand,
        log: &Path,
    ) -> anyhow::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening the worker's log {}", log.display()))?;
        let from = file.metadata().map_or(0, |metadata| metadata.len());
        let errors = file.try_clone().with_context(|| format!("opening {}", log.display()))?;
        let mut process = Command::new(&command.binary);
        for name in NOT_FOR_WORKERS {
            process.env_remove(name);
        }
        let child = process
            .args(&command.arguments)
            .env("MEDEVO_TOKEN", &command.token)
            .env("MEDEVO_LAUNCHER", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting the worker {}", command.binary.display()))?;
        let watch = watch_child(worker, child, log.to_owned(), from, self.stop.subscribe());
        self.watched.spawn(watch);
        Ok(())
    }

    /// How many have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.watched.len()
    }

    /// The next one that ends; pending forever when there is none left (select it against other things).
    pub async fn ended(&mut self) -> Ended {
        loop {
            match self.watched.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => tracing::error!("watching a worker broke off: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for all to leave by themselves (they were told to stop), then with SIGTERM, then with
    /// SIGKILL. When this returns, all are reaped.
    pub async fn stop(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.reap(LEAVE, &mut ended).await;
        self.hurry(&mut ended).await;
        ended
    }

    /// As [`Self::stop`], without the time to leave by themselves.
    pub async fn hurry(&mut self, ended: &mut Vec<Ended>) {
        for (stop, wait) in [(Stop::Terminate, TERMINATE), (Stop::Kill, REAP)] {
            if self.watched.is_empty() {
                return;
            }
            self.stop.send_replace(stop);
            self.reap(wait, ended).await;
        }
        if !self.watched.is_empty() {
            tracing::error!("{} worker processes could not be killed", self.watched.len());
        }
    }

    async fn reap(&mut self, wait: Duration, ended: &mut Vec<Ended>) {
        let until = Instant::now() + wait;
        while !self.watched.is_empty() {
            match timeout_at(until, self.ended()).await {
                Ok(one) => ended.push(one),
                Err(_) => return,
            }
        }
    }
}

async fn watch_child(
    worker: WorkerId,
    mut child: Child,
    log: PathBuf,
    from: u64,
    mut stop: watch::Receiver<Stop>,
) -> Ended {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            changed = stop.changed() => {
                let asked = *stop.borrow_and_update();
                if changed.is_err() || asked == Stop::Kill {
                    // An error means that it has ended already; the wait sees it.
                    let _ = child.start_kill();
                    break child.wait().await;
                }
                if asked == Stop::Terminate && let Some(pid) = pid(&child) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    };
    let how = match &status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end could not be observed: {error}"),
    };
    let success = status.as_ref().is_ok_and(ExitStatus::success);
    let last_lines = tail(&log, from).unwrap_or_default();
    Ended { worker, how, success, last_lines }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// The last lines of what this life of the worker wrote.
fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let length = fs::metadata(log)?.len();
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> WorkerCommand {
        WorkerCommand {
            binary: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            token: "a token for the test".into(),
        }
    }

    #[tokio::test]
    async fn a_failed_worker_says_how_and_with_which_last_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("worker-w0.log");
        fs::write(&log, "words of an earlier life\n").expect("a log");
        let mut children = Children::default();
        let command = shell("echo the model has no tensor lm_head >&2; exit 7");
        children.start("w0".into(), &command, &log).expect("a shell starts");
        let ended = children.ended().await;
        assert_eq!(ended.worker, "w0".into());
        assert!(!ended.success);
        assert!(ended.how.contains('7'), "{}", ended.how);
        assert_eq!(ended.last_lines, "the model has no tensor lm_head");
    }

    #[tokio::test]
    async fn a_worker_that_ignores_sigterm_is_killed_and_reaped() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("w0.log");
        let mut children = Children::default();
        let command = shell("trap '' TERM; echo ready; while true; do sleep 0.05; done");
        children.start("w0".into(), &command, &log).expect("a shell starts");
        let ready = async {
            while !fs::read_to_string(&log).unwrap_or_default().contains("ready") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ready).await.expect("the shell gets ready");
        let mut ended = Vec::new();
        children.hurry(&mut ended).await;
        assert_eq!(ended.len(), 1);
        assert_eq!(children.running(), 0);
        assert!(ended[0].how.contains('9'), "{}", ended[0].how);
    }
}
