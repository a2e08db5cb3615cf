//! A switch for tests only: the coordinator kills itself when it enters a phase.
//!
//! `MEDEVO_COORD_FAULT=scoring@3` sends SIGKILL to this process as soon as phase `scoring` of step 3 is on
//! record, which is what a crash at the worst moment looks like from outside. Never set it on a run that
//! matters. Phases carry the names of the event stream, in lower case.

use medevo_core::api::Event;

/// Where to fall over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    phase: String,
    step: u64,
}

impl Fault {
    /// The fault that the environment asks for, if any.
    ///
    /// # Errors
    /// When the variable is set but is not `phase@step`.
    pub(super) fn from_env() -> anyhow::Result<Option<Self>> {
        match std::env::var("MEDEVO_COORD_FAULT") {
            Ok(text) => Self::parse(&text).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let parsed = text.split_once('@').and_then(|(phase, step)| {
            Some(Self { phase: phase.to_owned(), step: step.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            anyhow::anyhow!(
                "MEDEVO_COORD_FAULT is `{text}`; it is written phase@step, for example scoring@3"
            )
        })
    }

    /// Kills this process if `event` is the one.
    pub(super) fn strike(&self, event: &Event) {
        if self.matches(event) {
            let this = rustix::process::getpid();
            let killed = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            tracing::error!("the fault point did not kill this process: {killed:?}");
        }
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
        assert!(Fault::parse("scoring").is_err());
        assert!(Fault::parse("scoring@soon").is_err());
    }
}
