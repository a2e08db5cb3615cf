//! The run's stages as a line of positions and steps.

use medevo_types::{Step, settings::OptimizerSettings};

use crate::{EvalPass, Position, RunSpec, StageKind, StageSpec};

/// One training step: where it lies. The steps that use one rollout are a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrainStep {
    /// Index of the stage.
    pub stage: usize,
    /// Step within the stage, from 1.
    pub stage_step: u64,
    /// Step within the run, from 1.
    pub step: Step,
    /// Step within its cycle, from 1.
    pub iteration: u64,
    /// Steps of its cycle: the stage's end may cut the last one short.
    pub iterations: u64,
}

impl TrainStep {
    /// The next step on the same rollout; None at a cycle's end.
    pub fn again(self) -> Option<TrainStep> {
        (self.iteration < self.iterations).then(|| TrainStep {
            stage_step: self.stage_step + 1,
            step: self.step.next(),
            iteration: self.iteration + 1,
            ..self
        })
    }

    /// Whether what comes every so many steps fell due in the cycle that ends here. `count` numbers this step,
    /// within the stage or the run.
    pub fn due(self, every: u64, count: u64) -> bool {
        every > 0 && count / every > count.saturating_sub(self.iterations) / every
    }
}

/// "step 42", or "step 42 (iteration 2 of 3)".
impl std::fmt::Display for TrainStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}", self.step)?;
        match self.iterations {
            1 => Ok(()),
            of => write!(f, " (iteration {} of {of})", self.iteration),
        }
    }
}

/// What comes after a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A training step.
    Train(TrainStep),
    /// A pass of an evaluate stage.
    Pass {
        /// Index of the stage.
        stage: usize,
        /// Index of the pass in it.
        pass: usize,
    },
    /// Nothing.
    Done,
}

/// Pieces of work in a stage: training steps or passes.
fn length(stage: &StageSpec) -> u64 {
    match &stage.kind {
        StageKind::Sft { steps, .. } | StageKind::Rl { steps, .. } => *steps,
        StageKind::Evaluate { passes } => passes.len() as u64,
    }
}

/// Training steps of a stage; 0 for an evaluate stage.
fn training_steps(stage: &StageSpec) -> u64 {
    match &stage.kind {
        StageKind::Evaluate { .. } => 0,
        _ => length(stage),
    }
}

/// What comes after `at`; stages without work are passed over.
pub(crate) fn next(spec: &RunSpec, at: Position) -> Next {
    let mut at = at;
    while let Some(stage) = spec.stages.get(at.stage) {
        if at.done < length(stage) {
            return match stage.kind {
                StageKind::Evaluate { .. } => {
                    Next::Pass { stage: at.stage, pass: at.done as usize }
                }
                _ => Next::Train(train_step(stage, at, committed(spec, at).next())),
            };
        }
        at = Position { stage: at.stage + 1, ..Position::default() };
    }
    Next::Done
}

/// The training step that leads to `position` (within its own stage) and is number `step` of the run. None where
/// there is no such step.
pub(crate) fn step_at(spec: &RunSpec, position: Position, step: Step) -> Option<TrainStep> {
    let stage = spec.stages.get(position.stage)?;
    let done = position.done.checked_sub(1)?;
    let trains = position.done <= training_steps(stage);
    trains.then(|| train_step(stage, Position { done, ..position }, step))
}

/// The steps in `(after, upto]` that begin with a rollout.
#[must_use]
pub fn rollout_steps(spec: &RunSpec, after: Step, upto: Step) -> Vec<Step> {
    let (mut found, mut before) = (Vec::new(), 0);
    for stage in &spec.stages {
        if let StageKind::Rl { steps, objective, .. } = &stage.kind {
            let each = objective.num_iterations.max(1);
            let first = (0..*steps).filter(|done| done % each == 0);
            found.extend(first.map(|done| Step(before + done + 1)));
        }
        before += training_steps(stage);
    }
    found.retain(|step| *step > after && *step <= upto);
    found
}

fn train_step(stage: &StageSpec, at: Position, step: Step) -> TrainStep {
    let each = match &stage.kind {
        StageKind::Rl { objective, .. } => objective.num_iterations.max(1),
        _ => 1,
    };
    let before = at.done / each * each;
    TrainStep {
        stage: at.stage,
        stage_step: at.done + 1,
        step,
        iteration: at.done + 1 - before,
        iterations: each.min(length(stage) - before),
    }
}

/// A position, moved to the next stage when it is the end of its own.
pub(crate) fn settled(spec: &RunSpec, at: Position) -> Position {
    match spec.stages.get(at.stage) {
        Some(s) if at.done >= length(s) => Position { stage: at.stage + 1, ..Position::default() },
        _ => at,
    }
}

/// The last step that is committed at a position.
pub(crate) fn committed(spec: &RunSpec, at: Position) -> Step {
    let whole: u64 = spec.stages.iter().take(at.stage).map(training_steps).sum();
    let part = spec.stages.get(at.stage).map_or(0, |s| at.done.min(training_steps(s)));
    Step(whole + part)
}

/// Training steps of the whole run.
pub(crate) fn total_steps(spec: &RunSpec) -> u64 {
    spec.stages.iter().map(training_steps).sum()
}

/// Name of a stage; "done" behind the last.
pub(crate) fn stage_name(spec: &RunSpec, stage: usize) -> String {
    spec.stages.get(stage).map_or_else(|| "done".to_owned(), |s| s.name.clone())
}

/// Kind of a stage as the event stream names it.
pub(crate) fn stage_kind(stage: &StageSpec) -> &'static str {
    match stage.kind {
        StageKind::Sft { .. } => "sft",
        StageKind::Rl { .. } => "rl",
        StageKind::Evaluate { .. } => "evaluate",
    }
}

/// The passes that a stage makes: an evaluate stage's own, an rl stage's in-between ones.
pub(crate) fn passes(spec: &RunSpec, stage: usize) -> &[EvalPass] {
    match spec.stages.get(stage).map(|s| &s.kind) {
        Some(StageKind::Rl { passes, .. } | StageKind::Evaluate { passes }) => passes,
        _ => &[],
    }
}

/// Optimizer settings and length of a training stage.
pub(crate) fn optimizer(spec: &RunSpec, stage: usize) -> Option<(&OptimizerSettings, u64)> {
    match &spec.stages.get(stage)?.kind {
        StageKind::Sft { optimizer, steps, .. } | StageKind::Rl { optimizer, steps, .. } => {
            Some((optimizer, *steps))
        }
        StageKind::Evaluate { .. } => None,
    }
}

/// Why a spec cannot be run, if it cannot.
pub(crate) fn problem(spec: &RunSpec) -> Option<String> {
    if spec.max_workers < spec.min_workers {
        return Some(format!(
            "max_workers ({}) is smaller than min_workers ({}): raise the one or lower the other",
            spec.max_workers, spec.min_workers
        ));
    }
    for stage in &spec.stages {
        let (what, count, size) = match &stage.kind {
            StageKind::Sft { samples, batch, .. } => ("batch", *batch, *samples),
            StageKind::Rl { samples, questions, .. } => ("questions", *questions, *samples),
            StageKind::Evaluate { .. } => continue,
        };
        if length(stage) > 0 && (count == 0 || size == 0) {
            return Some(format!(
                "stage \"{}\" has nothing to train on ({what} = {count}, {size} samples): \
                 give it data",
                stage.name
            ));
        }
    }
    None
}
