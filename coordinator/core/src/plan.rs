//! The run's stages as a line of positions and steps.

use medevo_types::{Step, settings::OptimizerSettings};

use crate::{EvalPass, Position, RunSpec, StageKind, StageSpec};

/// One training step: where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrainStep {
    /// Index of the stage.
    pub stage: usize,
    /// Step within the stage, from 1.
    pub stage_step: u64,
    /// Step within the run, from 1.
    pub step: Step,
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
                _ => Next::Train(TrainStep {
                    stage: at.stage,
                    stage_step: at.done + 1,
                    step: committed(spec, at).next(),
                }),
            };
        }
        at = Position { stage: at.stage + 1, done: 0 };
    }
    Next::Done
}

/// The position once `done` pieces of `stage` are behind us.
pub(crate) fn after(spec: &RunSpec, stage: usize, done: u64) -> Position {
    match spec.stages.get(stage) {
        Some(s) if done >= length(s) => Position { stage: stage + 1, done: 0 },
        _ => Position { stage, done },
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
