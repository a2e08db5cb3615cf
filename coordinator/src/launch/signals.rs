//! Ctrl-C, SIGTERM, and a scheduler's notice.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What [`Signals::any`] calls the signal by which a scheduler says that the time is nearly up.
pub const NOTICE: &str = "SIGUSR2";
const TERMINATE: &str = "SIGTERM";

/// The signals that ask a run to end.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    notice: Signal,
    /// Somebody has asked already.
    asked: bool,
    /// It was a scheduler.
    noticed: bool,
}

impl Signals {
    /// From now on these signals no longer end the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("catching SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("catching SIGTERM")?,
            notice: signal(SignalKind::user_defined2()).context("catching SIGUSR2")?,
            asked: false,
            noticed: false,
        })
    }

    /// The name of the next one that counts. A notice counts once. A SIGTERM after it is what schedulers send to every
    /// process when the time is up, and no reason to hurry: SIGKILL comes by itself.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = self.any().await;
            if (name == NOTICE && self.asked) || (name == TERMINATE && self.noticed) {
                continue;
            }
            self.asked = true;
            self.noticed |= name == NOTICE;
            return name;
        }
    }

    /// The name of the next one.
    pub async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => TERMINATE,
            _ = self.notice.recv() => NOTICE,
        }
    }
}
