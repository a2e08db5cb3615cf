//! A switch for tests only: the coordinator kills itself when it enters a phase.
//!
//! `MEDEVO_COORD_FAULT=scoring@3` sends SIGKILL to this process as soon as phase `scoring` of step 3 is on
//! record, which is what a crash at the worst moment looks like from outside. `stop:scoring@3` sends SIGSTOP
//! instead, once: while the coordinator stands still in that phase, a test does to others what it means to,
//! and sends SIGCONT. Never set it on a run that matters. Phases carry the names of the event stream, in
//! lower case.

use medevo_core::api::Event;
use rustix::process::Signal;

/// Where to fall over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    signal: Signal,
    phase: String,
    step: u64,
}

impl Fault {
    /// The fault that the environment asks for, if any.
    ///
    /// # Errors
    /// When the variable is set but is not `[stop:]phase@step`.
    pub(super) fn from_env() -> anyhow::Result<Option<Self>> {
        match std::env::var("MEDEVO_COORD_FAULT") {
            // A release build has no such door.
            Ok(text) if cfg!(debug_assertions) => Self::parse(&text).map(Some),
            _ => Ok(None),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (signal, place) = match text.strip_prefix("stop:") {
            Some(place) => (Signal::STOP, place),
            None => (Signal::KILL, text),
        };
        let parsed = place.split_once('@').and_then(|(phase, step)| {
            Some(Self { signal, phase: phase.to_owned(), step: step.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            anyhow::anyhow!(
                "MEDEVO_COORD_FAULT is `{text}`; it is written [stop:]phase@step, for example scoring@3"
            )
        })
    }

    /// Kills or stops this process if `event` is the one. Returns whether it was.
    pub(super) fn strike(&self, event: &Event) -> bool {
        if !self.matches(event) {
            return false;
        }
        let this = rustix::process::getpid();
        if let Err(error) = rustix::process::kill_process(this, self.signal) {
            tracing::error!("the fault point could not signal this process: {error}");
        }
        true
    }

    fn matches(&self, event: &Event) -> bool {
        matches!(event, Event::Phase { phase, step, .. } if *phase == self.phase && step.0 == self.step)
    }
}

#[cfg(test)]
mod tests {
    use medevo_types::{Generation, Step};

    use super::*;

    #[test]
    fn a_fault_names_a_phase_and_a_step() {
        let fault = Fault::parse("scoring@3").expect("a well-formed fault");
        let event = |phase: &str, step| Event::Phase {
            phase: phase.into(),
            step: Step(step),
            generation: Generation(1),
        };
        assert!(fault.matches(&event("scoring", 3)));
        assert!(!fault.matches(&event("scoring", 2)));
        assert!(!fault.matches(&event("updating", 3)));
        assert_eq!(fault.signal, Signal::KILL);
        let stop = Fault::parse("stop:scoring@3").expect("a well-formed fault");
        assert_eq!(stop, Fault { signal: Signal::STOP, ..fault });
        assert!(Fault::parse("scoring").is_err());
        assert!(Fault::parse("scoring@soon").is_err());
    }
}
