//! Everything that asks a run to end: Ctrl-C, SIGTERM, a terminal that is closed, and requests in its directory.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::requests::Requests;
use crate::run_dir::{RunDir, Wish};

/// Somebody asks the run to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who or what, for people.
    pub by: String,
    /// Whether the second of these means "at once": so it is with Ctrl-C and SIGTERM. A terminal that is closed may
    /// send SIGHUP twice, by its shell and by the system.
    pub counts: bool,
    /// At once, without a checkpoint.
    pub at_once: bool,
}

/// The signals that ask a run to end, and the requests in its directory once they are [heeded](Signals::heed).
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    requests: Option<Requests>,
}

impl Signals {
    /// From now on these signals no longer end the process. SIGHUP stays ignored where it is (`nohup`).
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch() -> anyhow::Result<Self> {
        let hangup = match hangup_is_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup()).context("catching SIGHUP")?),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("catching SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("catching SIGTERM")?,
            hangup,
            requests: None,
        })
    }

    /// Heeds what is asked through the run's directory from now on, and takes away what was asked before: this start
    /// is the answer to it. Signals that heed them already go on as they are.
    ///
    /// # Errors
    /// An old request cannot be taken away.
    pub fn heed(&mut self, run_dir: &RunDir) -> anyhow::Result<()> {
        if self.requests.is_none() {
            run_dir.forget_requests()?;
            self.requests = Some(Requests::follow(run_dir, None));
        }
        Ok(())
    }

    /// As [`Signals::heed`], of a coordinator that stands by: what was asked before is the leader's to answer, and
    /// stays.
    pub fn heed_standing_by(&mut self, run_dir: &RunDir) {
        self.requests = Some(Requests::follow(run_dir, run_dir.asked()));
    }

    /// The next one.
    pub async fn next(&mut self) -> Ask {
        let Self { interrupt, terminate, hangup, requests } = self;
        let signal = |by: &str, counts| Ask { by: by.to_owned(), counts, at_once: false };
        tokio::select! {
            _ = interrupt.recv() => signal("Ctrl-C", true),
            _ = terminate.recv() => signal("SIGTERM", true),
            _ = async { match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            } } => signal("SIGHUP (its terminal was closed)", false),
            request = async { match requests {
                Some(requests) => requests.next().await,
                None => std::future::pending().await,
            } } => Ask {
                by: format!("a request of {}", request.by),
                counts: false,
                at_once: request.wish == Wish::Stop,
            },
        }
    }

    /// The next one that wants a run that is ending already to end at once.
    pub async fn hurry(&mut self) {
        loop {
            let ask = self.next().await;
            if ask.counts || ask.at_once {
                return;
            }
        }
    }
}

/// Whether whoever started this process has SIGHUP ignored.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}
