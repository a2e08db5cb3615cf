//! Committing: the decision is on record first, then the optimizers step (INV-1, INV-2).

use std::collections::BTreeMap;

use medevo_types::{Attempt, Digest, messages::Rejection};

use crate::{
    Core, Event, Left, Millis, Output, Position, Record,
    phase::{Answer, Committing, Learn, Phase, Work},
    plan::{self, TrainStep},
    weights::{Weights, prevailing},
};

impl Core {
    /// The ballots are unanimous: put the commit on record and let everyone apply it.
    pub(crate) fn commit(&mut self, now: Millis, out: &mut Output) {
        let Phase::Updating(mut updating) = std::mem::take(&mut self.phase) else { return };
        let Some(ballot) = updating.ballots.remove(&0) else { return };
        let learn = *updating.learn;
        let at = learn.at;
        let mut figures: BTreeMap<String, f64> =
            learn.figures.iter().cloned().chain(ballot.figures).collect();
        figures.insert("grad_norm".to_owned(), ballot.grad_norm);
        if at.iterations > 1 {
            figures.insert("iteration".to_owned(), at.iteration as f64);
        }
        let reset_moments = self.stage_start == Some((at.stage, self.policy));
        self.policy = self.policy.next();
        self.record_commit(at, learn.attempt, ballot.gradient, learn.extra, out);
        self.weights = Weights::AppliedBy(
            self.seats.ranks.iter().map(|seat| seat.member.tag.clone()).collect(),
        );
        let committing = Committing {
            at,
            attempt: learn.attempt,
            lr: self.lr(at),
            reset_moments,
            batch: learn.batch,
            rollout: learn.figures,
            figures,
            applied: BTreeMap::new(),
            deadline: now + self.spec.deadlines.apply_ms,
        };
        self.enter(now, Phase::Committing(committing), out);
    }

    fn record_commit(
        &mut self,
        at: TrainStep,
        attempt: Attempt,
        gradient: Digest,
        extra: u64,
        out: &mut Output,
    ) {
        let (generation, policy) = (self.seats.generation, self.policy);
        let extra = self.position.extra + extra;
        let position = Position { stage: at.stage, done: at.stage_step, extra };
        let left = Left {
            position,
            before: Some(self.weights.digest()).filter(|digest| !digest.0.is_empty()),
            reference: self.reference.clone(),
            untrained: self.stage_start == Some((at.stage, policy)),
        };
        let (step, left) = (at.step, Some(left));
        out.records.push(Record::Commit { step, attempt, generation, policy, gradient, left });
        self.committed = step;
        self.position = plan::settled(&self.spec, position);
        self.earlier.settle(step);
    }

    fn lr(&self, at: TrainStep) -> f64 {
        plan::optimizer(&self.spec, at.stage)
            .map_or(0.0, |(optimizer, steps)| optimizer.lr_at(at.stage_step, steps))
    }

    /// No group trains: every step of the cycle counts as committed and the weights stay. Such a commit carries
    /// attempt 0 and an empty gradient digest, for there was no ballot.
    pub(crate) fn pass_cycle(
        &mut self,
        now: Millis,
        first: TrainStep,
        figures: Vec<(String, f64)>,
        extra: u64,
        out: &mut Output,
    ) {
        let figures: BTreeMap<String, f64> = figures.into_iter().collect();
        let (mut last, mut extra) = (first, extra);
        for at in std::iter::successors(Some(first), |at| at.again()) {
            let uncounted = std::mem::take(&mut extra);
            self.record_commit(at, Attempt(0), Digest(String::new()), uncounted, out);
            self.announce_step(now, at, Attempt(0), 0, figures.clone(), out);
            last = at;
        }
        let work = self.after_cycle(last);
        self.start(now, work, out);
    }

    fn announce_step(
        &mut self,
        now: Millis,
        at: TrainStep,
        attempt: Attempt,
        trained: usize,
        figures: BTreeMap<String, f64>,
        out: &mut Output,
    ) {
        out.events.push(Event::StepCommitted {
            stage: plan::stage_name(&self.spec, at.stage),
            step: at.step,
            stage_step: at.stage_step,
            policy: self.policy,
            attempt,
            generation: self.seats.generation,
            lr: self.lr(at),
            trained,
            figures,
            millis: self.clock.lap(now),
        });
    }

    /// A rank has applied the step, or could not.
    pub(crate) fn applied(
        &mut self,
        now: Millis,
        rank: usize,
        answer: Answer<Digest>,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        let Phase::Committing(committing) = &mut self.phase else {
            return Err(Rejection::Unexpected);
        };
        if committing.applied.contains_key(&rank) {
            return Err(Rejection::Duplicate);
        }
        committing.applied.insert(rank, answer);
        self.settle_commit(now, out);
        Ok(())
    }

    /// Goes on once everyone who is still there has answered. Whoever is lost or did otherwise gets the
    /// new weights from the others, in a new generation: the step stands.
    pub(crate) fn settle_commit(&mut self, now: Millis, out: &mut Output) {
        let Phase::Committing(committing) = &self.phase else { return };
        // Mostly too few have: not everyone has to be looked at to see it.
        if committing.applied.len() < self.seats.present().count() {
            return;
        }
        if self.seats.present().all(|rank| committing.applied.contains_key(&rank)) {
            self.leave_commit(now, out);
        }
    }

    /// Time is up for the optimizer steps.
    pub(crate) fn leave_commit(&mut self, now: Millis, out: &mut Output) {
        let Phase::Committing(committing) = std::mem::take(&mut self.phase) else { return };
        let Committing { at, attempt, batch, rollout, figures, applied, .. } = committing;
        self.announce_step(now, at, attempt, batch.len(), figures, out);
        let digests: BTreeMap<usize, &Digest> = applied
            .iter()
            .filter_map(|(&rank, answer)| match answer {
                Answer::Ok(digest) => Some((rank, digest)),
                Answer::Err(_) => None,
            })
            .collect();
        let agreed = prevailing(digests.iter().map(|(&rank, &digest)| (rank, digest)));
        if let Some(digest) = &agreed {
            self.weights = Weights::Known(digest.clone());
        }
        let odd: Vec<usize> = (0..self.seats.ranks.len())
            .filter(|rank| digests.get(rank).copied() != agreed.as_ref())
            .collect();
        let work = match at.again() {
            Some(at) => Work::Learn(Box::new(Learn {
                at,
                batch,
                attempt: Attempt(1),
                nonfinite: 0,
                figures: rollout,
                extra: 0,
            })),
            None => self.after_cycle(at),
        };
        match agreed {
            Some(digest) if odd.is_empty() => {
                let (policy, generation) = (self.policy, self.seats.generation);
                out.events.push(Event::DigestsAgree { policy, digest, generation });
                self.start(now, work, out);
            }
            _ => {
                let names = self.seats.names(if agreed.is_some() {
                    odd
                } else {
                    (0..self.seats.ranks.len()).collect()
                });
                let reason =
                    format!("{names} did not report the common weights of step {}", at.step);
                self.form(now, work, &reason, out);
            }
        }
    }

    /// What a cycle's last step is followed by: evaluation passes, a checkpoint, the next step.
    pub(crate) fn after_cycle(&mut self, at: TrainStep) -> Work {
        if self.pass_due(at)
            && let Some(measure) = self.measure(at.stage, 0, Some(at))
        {
            return Work::Measure(measure);
        }
        self.save_if_due(at)
    }
}
