//! What a run waits for, in one sentence (INV-6).

use crate::{
    Core, Millis,
    phase::{Phase, SaveTurn},
    roster::listed,
    units::Units,
};

impl Core {
    /// The moment at which the phase stops waiting; None before the first input and at the end.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Starting | Phase::Finished(_) => None,
            Phase::Gathering(gathering) => Some(
                gathering.grace.map_or(gathering.starve, |grace| grace.max(gathering.not_before)),
            ),
            Phase::Linking(linking) => Some(linking.deadline),
            Phase::Restoring(restoring) => Some(restoring.deadline),
            Phase::Rollout(draw) => Some(draw.units.deadline()),
            Phase::Scoring(scoring) => Some(scoring.deadline),
            Phase::Updating(updating) => Some(updating.deadline),
            Phase::Committing(committing) => Some(committing.deadline),
            Phase::Evaluating(measure) => Some(measure.units.deadline()),
            Phase::Checkpointing(saving) => Some(saving.deadline),
        }
    }

    /// What the run waits for, for whom, and how long still: "update of step 41: waiting on w3 (ballot),
    /// 12 s left".
    #[must_use]
    pub fn explain(&self, now: Millis) -> String {
        let what = match &self.phase {
            Phase::Starting => return "starting: nothing has happened yet".to_owned(),
            Phase::Finished(outcome) => return outcome.explain(),
            Phase::Gathering(gathering) => {
                let (here, min) = (self.membership.len(), self.spec.min_workers.max(1));
                if gathering.grace.is_some() {
                    let wanted = self.spec.wanted_workers();
                    format!("forming: {here} workers here, waiting for up to {wanted}")
                } else {
                    format!("forming ({}): {here} of at least {min} workers here", gathering.reason)
                }
            }
            Phase::Linking(linking) => format!(
                "forming generation {}: waiting on {} (communicator)",
                self.seats.generation,
                self.missing(|rank| linking.formed.contains_key(&rank))
            ),
            Phase::Restoring(restoring) => format!(
                "restoring version {}: waiting on {} (weights)",
                self.policy,
                self.missing(|rank| restoring.restored.contains_key(&rank))
            ),
            Phase::Rollout(draw) => {
                let units = self.units_sentence(&draw.units);
                format!("rollout of step {}{}: {units}", draw.at.step, round(draw.round))
            }
            Phase::Scoring(scoring) => {
                let (step, round) = (scoring.at.step, round(scoring.round));
                format!("scoring of step {step}{round}: waiting on the scorer")
            }
            Phase::Updating(updating) => format!(
                "update of {}: waiting on {} (ballot)",
                updating.learn.at,
                self.missing(|rank| updating.ballots.contains_key(&rank))
            ),
            Phase::Committing(committing) => format!(
                "commit of {}: waiting on {} (optimizer step)",
                committing.at,
                self.missing(|rank| committing.applied.contains_key(&rank))
            ),
            Phase::Evaluating(measure) => format!(
                "evaluation \"{}\" after step {}: {}",
                self.pass_name(),
                self.committed,
                self.units_sentence(&measure.units)
            ),
            Phase::Checkpointing(saving) => {
                let step = saving.checkpoint.step;
                match saving.turn {
                    SaveTurn::Files => {
                        let writers = self
                            .seats
                            .names(self.writers().filter(|r| !saving.files.contains_key(r)));
                        format!("checkpoint after step {step}: waiting on {writers} (files)")
                    }
                    SaveTurn::Manifest => {
                        format!("checkpoint after step {step}: waiting on its manifest")
                    }
                }
            }
        };
        let left = self.deadline().unwrap_or(now).saturating_sub(now).div_ceil(1000);
        format!("{what}, {left} s left")
    }

    /// Names of the present ranks that have not answered.
    fn missing(&self, answered: impl Fn(usize) -> bool) -> String {
        self.seats.names(self.seats.present().filter(|&rank| !answered(rank)))
    }

    fn units_sentence(&self, units: &Units) -> String {
        let (done, all, holders) = (units.done(), units.len(), units.holders());
        let waiting = if holders == 0 {
            "a worker to take the next".to_owned()
        } else {
            listed(holders, units.holder_names().map(|worker| worker.0.clone()))
        };
        format!("{done} of {all} units done, waiting on {waiting}")
    }
}

/// " (round 2)" of a rollout whose first questions taught too little.
fn round(round: u64) -> String {
    if round > 1 { format!(" (round {round})") } else { String::new() }
}
