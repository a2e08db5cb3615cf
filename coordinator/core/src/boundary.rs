//! Between two pieces of work: what comes next, and with whom.

use medevo_types::{Attempt, PolicyVersion};

use crate::{
    Core, Event, Millis, Outcome, Output, StageKind,
    order::step_samples,
    phase::{Batch, Learn, Phase, Save, SaveReason, Work},
    plan::{self, Next, TrainStep},
};

impl Core {
    /// Begins or resumes a piece of work.
    pub(crate) fn start(&mut self, now: Millis, work: Work, out: &mut Output) {
        match work {
            Work::Next => self.next_work(now, out),
            Work::Draw(_) | Work::Measure(_) => self.work_on(now, work, out),
            Work::Learn(learn) => self.update(now, learn, out),
            Work::Save(save) => self.save(now, save, out),
        }
    }

    /// A step boundary: the only place where a run drains, takes in new workers, or ends.
    fn next_work(&mut self, now: Millis, out: &mut Output) {
        if self.drain.is_some() {
            return match self.saved() {
                true => self.finish_drained(now, None, out),
                false => {
                    let save = Save { why: SaveReason::Drain, failures: 0 };
                    self.start(now, Work::Save(save), out);
                }
            };
        }
        let next = plan::next(&self.spec, self.position);
        if next == Next::Done {
            return self.end(now, out);
        }
        if !self.seats.whole() {
            return self.form(now, Work::Next, "the roster changed", out);
        }
        if self.membership.len() > self.seats.ranks.len() {
            return self.form(now, Work::Next, "new workers joined", out);
        }
        match next {
            Next::Train(at) => self.train(now, at, out),
            Next::Pass { stage, pass } => {
                self.announce_stage(stage, out);
                if let Some(measure) = self.measure(stage, pass, None) {
                    self.start(now, Work::Measure(measure), out);
                }
            }
            Next::Done => {}
        }
    }

    fn train(&mut self, now: Millis, at: TrainStep, out: &mut Output) {
        let Some(stage) = self.spec.stages.get(at.stage) else { return };
        if at.stage_step == 1 {
            self.stage_start = Some((at.stage, self.policy));
            self.reference = None;
        }
        let (needs_reference, sft) = match &stage.kind {
            StageKind::Rl { objective, .. } => (objective.beta > 0.0 && !self.spec.adapters, None),
            StageKind::Sft { samples, batch, together, .. } => {
                (false, Some((*batch, *samples, *together)))
            }
            StageKind::Evaluate { .. } => return,
        };
        if needs_reference && self.reference.is_none() {
            self.reference = self.weights_on_disk();
            if self.reference.is_none() {
                let save = Save { why: SaveReason::Reference, failures: 0 };
                return self.start(now, Work::Save(save), out);
            }
        }
        self.announce_stage(at.stage, out);
        let work = match sft {
            Some((batch, samples, together)) => {
                let (seed, step) = (self.spec.seed, at.stage_step);
                let chosen = step_samples(seed, at.stage, step, batch, samples, together);
                Work::Learn(Box::new(Learn {
                    at,
                    batch: Batch::Sft(chosen),
                    attempt: Attempt(1),
                    nonfinite: 0,
                    figures: Vec::new(),
                    extra: 0,
                }))
            }
            None => match self.draw(at, 1, None, Vec::new(), out) {
                Some(draw) => Work::Draw(draw),
                None => return,
            },
        };
        self.start(now, work, out);
    }

    /// A directory that holds exactly the current weights, if there is one.
    fn weights_on_disk(&self) -> Option<std::path::PathBuf> {
        match &self.checkpoint {
            Some(c) if c.policy == self.policy => Some(c.dir.clone()),
            _ if self.policy == PolicyVersion(0) => Some(self.spec.model.clone()),
            _ => None,
        }
    }

    fn announce_stage(&mut self, stage: usize, out: &mut Output) {
        if self.announced == Some(stage) {
            return;
        }
        self.announced = Some(stage);
        if let Some(spec) = self.spec.stages.get(stage) {
            let kind = plan::stage_kind(spec).to_owned();
            out.events.push(Event::StageStarted { stage: spec.name.clone(), kind });
        }
    }

    /// Every stage is done: well, if the weights are safe.
    fn end(&mut self, now: Millis, out: &mut Output) {
        if self.weights_on_disk().is_some() {
            self.finish(now, Outcome::Done, out);
        } else {
            let reason = "every stage is done, but the last weights could not be written: free \
                          some space and resume from the last good checkpoint";
            self.fail(now, reason.to_owned(), out);
        }
    }

    /// While no roster stands, a run that has nothing to save can be drained at once. Returns whether it
    /// was.
    pub(crate) fn drained_while_gathering(&mut self, now: Millis, out: &mut Output) -> bool {
        let idle = matches!(self.phase, Phase::Gathering(_)) && self.drain.is_some();
        let at_once = idle && self.saved();
        if at_once {
            self.finish_drained(now, None, out);
        }
        at_once
    }

    /// Takes the work out of a phase that a change of roster interrupts. None, and the phase as it was,
    /// where there is none to take.
    pub(crate) fn take_work(&mut self) -> Option<Work> {
        match std::mem::take(&mut self.phase) {
            Phase::Gathering(gathering) => Some(gathering.work),
            Phase::Linking(linking) => Some(linking.work),
            Phase::Restoring(restoring) => Some(restoring.work),
            Phase::Rollout(draw) => Some(Work::Draw(draw)),
            Phase::Evaluating(measure) => Some(Work::Measure(measure)),
            Phase::Updating(updating) => Some(Work::Learn(updating.learn)),
            Phase::Checkpointing(saving) => Some(Work::Save(saving.save)),
            other => {
                self.phase = other;
                None
            }
        }
    }
}
