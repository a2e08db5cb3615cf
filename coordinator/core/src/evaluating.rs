//! Evaluating: passes over evaluation splits, through the same units as a rollout.

use medevo_types::messages::Purpose;

use crate::{
    Core, Effect, Event, Millis, Output, Position, StageKind,
    phase::{Measure, Phase, Work},
    plan::{self, TrainStep},
    units::{Brief, Units},
};

impl Core {
    /// Cuts a pass into units. `within` is the training step that it follows inside an rl stage.
    pub(crate) fn measure(
        &mut self,
        stage: usize,
        pass: usize,
        within: Option<TrainStep>,
    ) -> Option<Measure> {
        let split = plan::passes(&self.spec, stage).get(pass)?;
        let brief = Brief {
            policy: self.policy,
            step: self.committed,
            purpose: Purpose::Evaluate,
            data: split.data,
            sampling: split.sampling.clone(),
            features: false,
        };
        let samples: Vec<usize> = (0..split.samples).collect();
        let (each, unit_ms) = (self.spec.prompts_per_unit, self.spec.deadlines.unit_ms);
        let units = Units::cut(brief, &samples, each, unit_ms, &mut self.next_unit);
        Some(Measure { stage, pass, within, units })
    }

    /// Whether the in-between passes are due after a cycle's last step.
    pub(crate) fn pass_due(&self, at: TrainStep) -> bool {
        match self.spec.stages.get(at.stage).map(|s| &s.kind) {
            Some(StageKind::Rl { evaluate_every, passes, .. }) => {
                at.due(*evaluate_every, at.stage_step) && !passes.is_empty()
            }
            _ => false,
        }
    }

    /// A pass is complete: the driver scores it, the run goes on.
    pub(crate) fn measured(&mut self, now: Millis, measure: Measure, out: &mut Output) {
        let Measure { stage, pass, within, units } = measure;
        let policy = units.brief.policy;
        let Some(split) = plan::passes(&self.spec, stage).get(pass).cloned() else { return };
        out.events.push(Event::PassDone {
            stage: plan::stage_name(&self.spec, stage),
            pass: split.name.clone(),
            step: self.committed,
        });
        let (step, groups) = (self.committed, units.into_groups());
        out.effects.push(Effect::Evaluated { stage, pass: split, step, policy, groups });
        let Some(at) = within else {
            let done = Position { stage, done: pass as u64 + 1, extra: 0 };
            self.position = plan::settled(&self.spec, done);
            return self.start(now, Work::Next, out);
        };
        let work = match self.measure(stage, pass + 1, within) {
            Some(next) => Work::Measure(next),
            None => self.save_if_due(at),
        };
        self.start(now, work, out);
    }

    /// Name of the pass that is under way.
    pub(crate) fn pass_name(&self) -> &str {
        match &self.phase {
            Phase::Evaluating(measure) => plan::passes(&self.spec, measure.stage)
                .get(measure.pass)
                .map_or("", |pass| pass.name.as_str()),
            _ => "",
        }
    }
}
