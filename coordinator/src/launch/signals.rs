//! Everything that asks a run to end: Ctrl-C, SIGTERM, a terminal that is closed, a scheduler's notice, and requests in
//! its directory.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::requests::Requests;
use crate::run_dir::{RunDir, Wish};

/// What [`Signals::any`] calls the signal by which a scheduler says that the time is nearly up.
pub const NOTICE: &str = "SIGUSR2";
const TERMINATE: &str = "SIGTERM";
const HANGUP: &str = "SIGHUP (its terminal was closed)";

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
    caught: Caught,
    requests: Option<Requests>,
    /// Somebody has asked already.
    asked: bool,
    /// It was a scheduler.
    noticed: bool,
}

struct Caught {
    interrupt: Signal,
    terminate: Signal,
    notice: Signal,
    hangup: Option<Signal>,
}

impl Caught {
    async fn next(&mut self) -> &'static str {
        let Self { interrupt, terminate, notice, hangup } = self;
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => TERMINATE,
            _ = notice.recv() => NOTICE,
            _ = async { match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            } } => HANGUP,
        }
    }
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
        let caught = Caught {
            interrupt: signal(SignalKind::interrupt()).context("catching SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("catching SIGTERM")?,
            notice: signal(SignalKind::user_defined2()).context("catching SIGUSR2")?,
            hangup,
        };
        Ok(Self { caught, requests: None, asked: false, noticed: false })
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

    /// The name of the next signal, whichever.
    pub async fn any(&mut self) -> &'static str {
        self.caught.next().await
    }

    /// The next one that counts. A scheduler's notice counts once. A SIGTERM after it is what schedulers send to every
    /// process when the time is up, and no reason to hurry: SIGKILL comes by itself.
    pub async fn next(&mut self) -> Ask {
        loop {
            let name = tokio::select! {
                name = self.caught.next() => name,
                request = async { match &mut self.requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                } } => return Ask {
                    by: format!("a request of {}", request.by),
                    counts: false,
                    at_once: request.wish == Wish::Stop,
                },
            };
            if (name == NOTICE && self.asked) || (name == TERMINATE && self.noticed) {
                continue;
            }
            let counts = name != HANGUP;
            self.asked |= counts;
            self.noticed |= name == NOTICE;
            return Ask { by: name.to_owned(), counts, at_once: false };
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
