//! What an earlier coordinator left that is worth going on with: its workers, its last commits, the candidates that
//! it had scored.

use std::collections::{BTreeMap, BTreeSet};

use medevo_types::{Digest, PolicyVersion, Step, WorkerId, messages::Group};

use crate::{
    Core, Event, Output, Recovered, Rollout, SampleIndex, Standing,
    phase::Work,
    plan::{self, TrainStep},
    weights::Weights,
};

/// The legacy of earlier terms.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// Workers of the last roster; they hold weights.
    roster: BTreeSet<WorkerId>,
    /// The step whose commit the run went on from, until another one is made.
    last: Option<TrainStep>,
    /// The step before that, and what was held after it: where the run goes on if nobody had applied the last one.
    before: Option<(Standing, Digest)>,
    /// Scored candidates by step.
    rollouts: BTreeMap<Step, Rollout>,
}

impl Earlier {
    /// Whether everyone of the last roster is here; false when nobody is waited for.
    pub fn all_back(&self, here: impl Fn(&WorkerId) -> bool) -> bool {
        !self.roster.is_empty() && self.roster.iter().all(here)
    }

    /// A generation is opened: from here on the roster is this term's own.
    pub fn opened(&mut self) {
        self.roster.clear();
    }

    /// A commit of this term: what lies before it is of no use any more.
    pub fn settle(&mut self, step: Step) {
        self.last = None;
        self.before = None;
        self.rollouts.retain(|&of, _| of > step);
    }

    /// The groups of `step`'s rollout, if they were drawn with exactly these weights.
    fn groups(
        &self,
        step: Step,
        policy: PolicyVersion,
        weights: &Weights,
    ) -> &[(SampleIndex, Group)] {
        match (self.rollouts.get(&step), weights) {
            (Some(rollout), Weights::Known(digest))
                if rollout.policy == policy && rollout.holding == *digest =>
            {
                &rollout.groups
            }
            _ => &[],
        }
    }
}

impl Core {
    /// Takes over what the store knew. The run stands on its last commit if it can go on from there, else on its
    /// checkpoint.
    pub(crate) fn inherit(&mut self, recovered: Recovered) {
        let Recovered { last, before, roster, rollouts, .. } = recovered;
        self.earlier.roster = roster;
        self.earlier.rollouts = rollouts.into_iter().map(|r| (r.step, r)).collect();
        let Some(last) = last else { return };
        let Some(at) = plan::step_at(&self.spec, last.left.position, last.step) else { return };
        if at.again().is_some() {
            // Within a cycle the next step needs the cycle's verdicts, which went with the coordinator.
            return;
        }
        let unchanged = before.as_ref().map_or(self.policy, |before| before.policy) == last.policy;
        let held = last.left.before.clone();
        if at.iteration == 1
            && let (Some(before), Some(held)) = (before, held.clone())
        {
            self.earlier.before = Some((before, held));
        }
        let weights = match held {
            Some(held) if unchanged => Weights::Known(held),
            _ => Weights::Reported(last.roster.clone()),
        };
        self.stand_on(&last, weights);
        self.earlier.last = Some(at);
    }

    /// What comes after the commit that the run went on from: its evaluation and its checkpoint may not have been
    /// made, and making them again changes nothing.
    pub(crate) fn work_after_takeover(&mut self) -> Work {
        match self.earlier.last {
            Some(at) => self.after_cycle(at),
            None => Work::Next,
        }
    }

    /// The step before the last commit, once: for a run in which nobody had applied that.
    pub(crate) fn step_back(&mut self) -> Option<(Standing, Digest)> {
        self.earlier.last = None;
        self.earlier.before.take()
    }

    /// Puts the run right behind a commit.
    pub(crate) fn stand_on(&mut self, standing: &Standing, weights: Weights) {
        let left = &standing.left;
        self.committed = standing.step;
        self.policy = standing.policy;
        self.position = plan::settled(&self.spec, left.position);
        self.reference = left.reference.clone();
        self.stage_start = left.untrained.then_some((left.position.stage, standing.policy));
        self.weights = weights;
    }

    /// Answers what an earlier term's workers have drawn already with these very weights.
    pub(crate) fn keep_rollout(
        &self,
        at: TrainStep,
        drawn: usize,
        units: &mut crate::units::Units,
        out: &mut Output,
    ) {
        let groups = self.earlier.groups(at.step, self.policy, &self.weights);
        let kept = units.keep(groups.get(drawn..).unwrap_or_default());
        if kept > 0 {
            out.events.push(Event::RolloutKept { step: at.step, groups: kept });
        }
    }
}
