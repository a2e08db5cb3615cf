//! Rollout: candidates of one training step, drawn by whoever pulls.

use medevo_types::{
    PolicyVersion, UnitId, WorkerTag,
    messages::{Group, Purpose, Rejection},
};

use crate::{
    Core, Event, Millis, Order, Output, SampleIndex, StageKind,
    order::samples_from,
    phase::{Draw, Phase, Work},
    plan::TrainStep,
    units::{Brief, MAX_UNIT_FAILURES, Pulled, Units},
};

impl Core {
    /// Cuts a round of a rollout into units: the stage's `questions` in the first, in a later one as many as
    /// are `missing`. `earlier` are the groups of the rounds before. None if the stage is not an rl stage.
    pub(crate) fn draw(
        &mut self,
        at: TrainStep,
        round: u64,
        missing: Option<usize>,
        earlier: Vec<(SampleIndex, Group)>,
        out: &mut Output,
    ) -> Option<Draw> {
        let StageKind::Rl { data, samples, questions, sampling, features, objective, .. } =
            &self.spec.stages.get(at.stage)?.kind
        else {
            return None;
        };
        let rollouts = (at.stage_step - 1) / objective.num_iterations.max(1);
        let drawn = rollouts * *questions as u64 + self.position.extra + earlier.len() as u64;
        let count = missing.unwrap_or(*questions);
        let chosen = samples_from(self.spec.seed, at.stage, drawn, count, *samples, 1);
        let brief = Brief {
            policy: self.policy,
            step: at.step,
            purpose: Purpose::Train,
            data: *data,
            sampling: sampling.clone(),
            features: *features,
        };
        let (each, unit_ms) = (self.spec.prompts_per_unit, self.spec.deadlines.unit_ms);
        let mut units = Units::cut(brief, &chosen, each, unit_ms, &mut self.next_unit);
        self.keep_rollout(at, earlier.len(), &mut units, out);
        Some(Draw { at, round, earlier, units })
    }

    /// The units that are being worked on, of a rollout or of an evaluation pass.
    pub(crate) fn units(&self) -> Option<&Units> {
        match &self.phase {
            Phase::Rollout(draw) => Some(&draw.units),
            Phase::Evaluating(measure) => Some(&measure.units),
            _ => None,
        }
    }

    fn units_mut(&mut self) -> Option<&mut Units> {
        self.phase.units_mut()
    }

    /// The order of a present worker that pulls: a unit, if there is one for it.
    pub(crate) fn pull_unit(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        out: &mut Output,
    ) -> Option<Order> {
        let seats = &self.seats;
        let units = self.phase.units_mut()?;
        let others = || {
            let names = seats.present().map(|rank| &seats.ranks[rank].member.tag.worker);
            names.filter(|worker| **worker != tag.worker)
        };
        match units.pull(now, tag, others) {
            Pulled::Nothing => None,
            Pulled::Unit(index) => Some(units.order(index)),
            Pulled::Overdue(index, worker) => {
                let reason = format!("overdue; also given to {}", tag.worker);
                out.events.push(Event::UnitReissued { unit: units.id(index), worker, reason });
                Some(units.order(index))
            }
        }
    }

    /// A unit's answer.
    pub(crate) fn rollout_done(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        unit: UnitId,
        policy: PolicyVersion,
        groups: Vec<Group>,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        let units = self.units_mut().ok_or(Rejection::UnknownUnit)?;
        match units.answer(now, unit, policy, groups) {
            // Nobody's order changes by it: an answer frees no unit.
            Ok(()) => {
                self.units_settled(now, out);
                Ok(())
            }
            // Left with the worker, the unit would come back the same way for ever.
            Err(rejection @ (Rejection::StalePolicy | Rejection::Unexpected)) => {
                self.unit_failed(now, tag, "its answer did not fit the unit", out);
                Err(rejection)
            }
            Err(rejection) => Err(rejection),
        }
    }

    /// A worker could not do its unit: somebody else tries; the third failure fails the run.
    pub(crate) fn unit_failed(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        error: &str,
        out: &mut Output,
    ) {
        let Some((unit, failures)) = self.units_mut().and_then(|units| units.failed(tag)) else {
            return;
        };
        if failures >= MAX_UNIT_FAILURES {
            let reason = format!(
                "rollout unit {} failed {failures} times; last on {}: {error}",
                unit, tag.worker
            );
            self.fail(now, reason, out);
        } else {
            let (worker, reason) = (tag.worker.clone(), format!("failed: {error}"));
            out.events.push(Event::UnitReissued { unit, worker, reason });
            out.wake = true;
        }
    }

    /// Workers are lost: their units go back at once; what others have drawn stays.
    pub(crate) fn units_lost(
        &mut self,
        now: Millis,
        ranks: &[usize],
        reason: &str,
        out: &mut Output,
    ) {
        let tags: Vec<WorkerTag> =
            ranks.iter().map(|&rank| self.seats.ranks[rank].member.tag.clone()).collect();
        let Some(units) = self.units_mut() else { return };
        for tag in tags {
            if let Some(unit) = units.release(&tag) {
                let (worker, reason) = (tag.worker.clone(), reason.to_owned());
                out.events.push(Event::UnitReissued { unit, worker, reason });
            }
        }
        if self.seats.empty() {
            self.regroup(now, reason, out);
        }
    }

    /// Time passed: overdue units may go to others; who is hopelessly late is given up.
    pub(crate) fn units_overdue(&mut self, now: Millis, out: &mut Output) {
        let Some(units) = self.units_mut() else { return };
        let (changed, hopeless) = units.overdue(now);
        out.wake |= changed;
        let stalled = units.stalled(now);
        let mut ranks: Vec<usize> = hopeless.iter().filter_map(|t| self.seats.rank(t)).collect();
        if stalled {
            ranks = self.seats.present().collect();
        }
        ranks.sort_unstable();
        ranks.dedup();
        self.give_up(now, &ranks, "it did not do its rollout work in time", out);
    }

    /// Goes on once every unit is answered.
    pub(crate) fn units_settled(&mut self, now: Millis, out: &mut Output) {
        if !self.units().is_some_and(Units::complete) {
            return;
        }
        match std::mem::take(&mut self.phase) {
            Phase::Rollout(draw) => self.score(now, draw, out),
            Phase::Evaluating(measure) => self.measured(now, measure, out),
            other => self.phase = other,
        }
    }

    /// Begins or resumes work on units; without anyone to do it a roster is formed first.
    pub(crate) fn work_on(&mut self, now: Millis, work: Work, out: &mut Output) {
        if self.seats.empty() {
            return self.form(now, work, "nobody is left", out);
        }
        let phase = match work {
            Work::Draw(mut draw) => {
                draw.units.begin(now);
                Phase::Rollout(draw)
            }
            Work::Measure(mut measure) => {
                measure.units.begin(now);
                Phase::Evaluating(measure)
            }
            other => return self.start(now, other, out),
        };
        self.enter(now, phase, out);
        self.units_settled(now, out);
    }
}
