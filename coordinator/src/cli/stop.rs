//! `drain` and `stop`: ask through the run directory, wait until the run has stopped, and see to it that it does.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_core::Ending;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{
    attended,
    operator::{Drain, Stop},
};
use crate::{
    launch::{Exit, cancel, queued},
    preflight::Refused,
    run_dir::{Request, RunDir, Status, Wish},
    say::{complain, say},
};

/// How often the run's status is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a coordinator has to act on a request to stop at once; a worker that does not end takes it 15 s.
const AT_ONCE: Duration = Duration::from_secs(40);
/// How long a killed process may take to be gone.
const REAP: Duration = Duration::from_secs(10);

/// Stops a run after its current step.
pub(super) fn drain(asked: &Drain) -> anyhow::Result<Exit> {
    let Some(run) = Run::find(&asked.run_dir)? else { return Ok(Exit::Done) };
    let request = run.ask(Wish::Drain)?;
    if asked.no_wait {
        say("asked; `medevo-coord status` shows when the run has stopped");
        return Ok(Exit::Done);
    }
    match run.wait(&request, Duration::from_secs_f64(asked.timeout))? {
        Some(exit) => Ok(exit),
        None => {
            let waits = run.status()?.map_or_else(String::new, |status| status.view.explain);
            complain(format!(
                "the run has not stopped within {} s ({waits}); it will after its step, or at once with \
                 `medevo-coord stop --now`",
                asked.timeout
            ));
            Ok(Exit::Failed)
        }
    }
}

/// Stops a run: by draining, and at once when that takes too long.
pub(super) fn stop(asked: &Stop) -> anyhow::Result<Exit> {
    let Some(run) = Run::find(&asked.run_dir)? else { return Ok(Exit::Done) };
    if !asked.now {
        let request = run.ask(Wish::Drain)?;
        if let Some(exit) = run.wait(&request, Duration::from_secs_f64(asked.grace))? {
            return Ok(exit);
        }
        complain(format!("not drained within {} s; stopping at once", asked.grace));
    }
    let request = run.ask(Wish::Stop)?;
    if let Some(exit) = run.wait(&request, AT_ONCE)? {
        return Ok(exit);
    }
    run.kill()
}

struct Run {
    run_dir: RunDir,
}

impl Run {
    /// The run, if it is under way; says so if it is not.
    fn find(path: &Path) -> anyhow::Result<Option<Self>> {
        let run_dir = RunDir::open(path).map_err(Refused::because)?;
        let run = Self { run_dir };
        let Some(status) = run.status()? else {
            return run.idle("no coordinator has led this run yet");
        };
        match status.view.ending {
            Some(_) if !(status.is_here() && status.alive()) => run.idle(&status.view.explain),
            None if status.is_here() && !status.alive() => {
                run.idle("its coordinator is gone; `medevo-coord resume` goes on")
            }
            None if !status.alive() => {
                complain(format!("{} has been silent for long; asking all the same", status.host));
                Ok(Some(run))
            }
            _ => Ok(Some(run)),
        }
    }

    /// Nobody leads the run. A job in Slurm's queue would, later: it is taken out.
    fn idle(&self, words: &str) -> anyhow::Result<Option<Self>> {
        attended(async {
            match queued(&self.run_dir).await {
                None => say(format!("nothing to stop: {words}")),
                Some(job) => {
                    cancel(&job).await?;
                    let place = self.run_dir.path().display();
                    say(format!(
                        "{job}: cancelled; `medevo-coord launch {place} --on slurm` goes on with the run"
                    ));
                }
            }
            Ok(None)
        })
    }

    fn status(&self) -> anyhow::Result<Option<Status>> {
        self.run_dir.status()
    }

    fn ask(&self, wish: Wish) -> anyhow::Result<Request> {
        let request = Request::new(wish);
        self.run_dir.ask(&request)?;
        Ok(request)
    }

    /// Waits until the run is over and, on this machine, its coordinator gone. None: it took too long.
    fn wait(&self, request: &Request, limit: Duration) -> anyhow::Result<Option<Exit>> {
        let until = Instant::now() + limit;
        let mut term = None;
        loop {
            if let Some(status) = self.status()? {
                let gone = !(status.is_here() && status.alive());
                match status.view.ending {
                    Some(ending) if gone => return Ok(Some(told(ending, &status))),
                    None if gone && status.is_here() => {
                        complain("its coordinator ended without a word; see `medevo-coord logs`");
                        return Ok(Some(Exit::Failed));
                    }
                    // A coordinator that was started on purpose meanwhile has taken the request away.
                    None if term.is_some_and(|term| term != status.view.term)
                        && self.run_dir.asked().is_none() =>
                    {
                        self.run_dir.ask(request)?;
                    }
                    _ => {}
                }
                term = Some(status.view.term);
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(LOOK);
        }
    }

    /// Kills a coordinator on this machine that heeds nothing. Its workers go with it.
    fn kill(&self) -> anyhow::Result<Exit> {
        let status = self.status()?.context("the run has no status")?;
        if !status.is_here() {
            complain(format!(
                "the coordinator (process {} on {}) heeds no request; end it there, with SIGKILL if it must be",
                status.pid, status.host
            ));
            return Ok(Exit::Failed);
        }
        let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
        // The handle is of one process and no later one with its number: opened first, looked at then.
        if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            && status.alive()
        {
            pidfd_send_signal(process, Signal::KILL)
                .with_context(|| format!("killing process {}", status.pid))?;
        }
        let until = Instant::now() + REAP;
        while status.alive() {
            anyhow::ensure!(Instant::now() < until, "process {} cannot be killed", status.pid);
            sleep(LOOK);
        }
        say("its coordinator heeded nothing and was killed; `medevo-coord resume` goes on");
        Ok(Exit::Done)
    }
}

/// Says how the run ended. What was asked for is done, whichever way.
fn told(ending: Ending, status: &Status) -> Exit {
    say(&status.view.explain);
    if ending == Ending::Failed { Exit::Failed } else { Exit::Done }
}
