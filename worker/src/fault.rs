//! A switch for tests only: dies by SIGKILL at a named place, as if the host had.
//!
//! `MEDEVO_FAULT="[WORKER:][stop:]POINT@NUMBER"`, for instance `rollout@3`, `w1:ballot@2` or
//! `w1:stop:rollout@3`. With a worker's name only that worker dies; the workers of a local run share one
//! environment. NUMBER is the step of the directive, or the generation for `form` and `restore`, which
//! belong to no step. With `stop` the worker stands still (SIGSTOP) until somebody sends SIGCONT.
//!
//! It works in the first life only: a worker that has joined again in the same process goes on, and
//! with `MEDEVO_FAULT_ONCE=FILE` so does every later process, because the first one leaves FILE behind.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use rustix::process::{Signal, getpid, kill_process};

/// Where a worker can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before a communicator is formed.
    Form,
    /// Before weights are restored.
    Restore,
    /// Before candidates are drawn.
    Rollout,
    /// Before a gradient is computed.
    Update,
    /// After the gradient is reduced, before the ballot is cast.
    Ballot,
    /// Before the optimizer step.
    Apply,
    /// After the optimizer step, before it is reported.
    Applied,
    /// Before a checkpoint's files are written.
    Checkpoint,
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "form" => Self::Form,
            "restore" => Self::Restore,
            "rollout" => Self::Rollout,
            "update" => Self::Update,
            "ballot" => Self::Ballot,
            "apply" => Self::Apply,
            "applied" => Self::Applied,
            "checkpoint" => Self::Checkpoint,
            other => bail!(
                "no fault point is called {other}; there are form, restore, rollout, update, ballot, \
                 apply, applied and checkpoint"
            ),
        })
    }
}

/// A death that is waiting, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    at: Option<(Point, u64)>,
    stop: bool,
    once: Option<PathBuf>,
}

impl Fault {
    /// Never dies.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What the environment asks of `worker`.
    ///
    /// # Errors
    /// The variable cannot be understood: a test that tests nothing is worse than one that fails.
    pub fn from_env(worker: &str) -> anyhow::Result<Self> {
        // A release build has no such door.
        let asked = std::env::var_os("MEDEVO_FAULT").filter(|_| cfg!(debug_assertions));
        let Some(text) = asked else { return Ok(Self::none()) };
        let text = text.to_str().context("MEDEVO_FAULT is not text")?;
        let mut fault = Self::parse(text, worker).context("in MEDEVO_FAULT")?;
        fault.once = std::env::var_os("MEDEVO_FAULT_ONCE").map(PathBuf::from);
        Ok(fault)
    }

    fn parse(text: &str, worker: &str) -> anyhow::Result<Self> {
        let (to_whom, place) = text.rsplit_once(':').unwrap_or(("", text));
        let (name, stop) = match to_whom {
            "stop" => ("", true),
            other => match other.strip_suffix(":stop") {
                Some(name) => (name, true),
                None => (other, false),
            },
        };
        let (point, number) = place
            .split_once('@')
            .with_context(|| format!("{text} is not [WORKER:][stop:]POINT@NUMBER"))?;
        let at =
            (point.parse()?, number.parse().with_context(|| format!("{number} is no number"))?);
        let meant = name.is_empty() || name == worker;
        Ok(Self { at: meant.then_some(at), stop, once: None })
    }

    /// Dies or stands still here if it was asked to.
    pub fn reached(&self, point: Point, number: u64) {
        if self.at != Some((point, number)) {
            return;
        }
        if let Some(file) = &self.once
            && std::fs::File::create_new(file).is_err()
        {
            return;
        }
        let signal = if self.stop { Signal::STOP } else { Signal::KILL };
        tracing::warn!(?point, number, ?signal, "on purpose (MEDEVO_FAULT)");
        if let Err(error) = kill_process(getpid(), signal) {
            tracing::error!(%error, "could not signal itself");
        }
        if self.stop {
            return;
        }
        // The signal may take a moment to arrive; nothing may happen after this point.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fault_strikes_the_worker_that_is_meant() {
        let at = |text: &str| Fault::parse(text, "w1").unwrap().at;
        assert_eq!(at("rollout@3"), Some((Point::Rollout, 3)));
        assert_eq!(at("w1:ballot@2"), Some((Point::Ballot, 2)));
        assert_eq!(at("w0:ballot@2"), None);
        let stops = |text: &str| Fault::parse(text, "w1").unwrap().stop;
        assert_eq!(at("w1:stop:ballot@2"), at("stop:ballot@2"));
        assert!(stops("w1:stop:ballot@2") && stops("stop:ballot@2") && !stops("w1:ballot@2"));
        assert_eq!(at("w0:stop:ballot@2"), None);
        for bad in ["rollout", "dance@1", "rollout@x", ""] {
            assert!(Fault::parse(bad, "w1").is_err(), "{bad}");
        }
        // Another place, another step: passes through alive.
        let fault = Fault::parse("rollout@3", "w1").unwrap();
        fault.reached(Point::Rollout, 2);
        fault.reached(Point::Update, 3);
    }
}
