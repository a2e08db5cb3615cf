//! What a worker is to do, with samples as indices.

use std::{path::PathBuf, sync::Arc};

use medevo_types::{
    Attempt, Generation, PolicyVersion, Step, UnitId,
    messages::{Purpose, Restore, Roster, TrainAnswer},
    settings::{Objective, OptimizerSettings, Sampling},
};

use super::*;

/// A directive with samples as indices; the driver puts questions and images in (never answers,
/// except in an sft stage).
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Ask again later.
    Wait {
        /// `explain()`.
        reason: String,
    },
    /// Form a communicator.
    Form(Roster),
    /// Get the weights.
    Restore(Restore),
    /// Draw answers.
    Rollout {
        /// Which unit.
        unit: UnitId,
        /// Weights.
        policy: PolicyVersion,
        /// Step.
        step: Step,
        /// Training or evaluation.
        purpose: Purpose,
        /// Which data.
        data: DataIndex,
        /// Which samples.
        samples: Vec<SampleIndex>,
        /// How.
        sampling: Sampling,
        /// With policy features.
        features: bool,
    },
    /// Compute and reduce a gradient.
    Update {
        /// Roster.
        generation: Generation,
        /// Step.
        step: Step,
        /// Try.
        attempt: Attempt,
        /// Weights.
        policy: PolicyVersion,
        /// This rank's share.
        share: Share,
    },
    /// Step the optimizer.
    Apply {
        /// Roster.
        generation: Generation,
        /// Step.
        step: Step,
        /// Try.
        attempt: Attempt,
        /// New version.
        policy: PolicyVersion,
        /// Stage's settings.
        optimizer: OptimizerSettings,
        /// Rate of this step.
        lr: f64,
        /// First step of a stage.
        reset_moments: bool,
    },
    /// Write a checkpoint's files.
    Checkpoint {
        /// Roster.
        generation: Generation,
        /// After which step.
        step: Step,
        /// Weights.
        policy: PolicyVersion,
        /// Where.
        dir: PathBuf,
    },
    /// Leave.
    Stop {
        /// Why.
        reason: String,
        /// The run has drained, and may be resumed.
        drained: bool,
    },
}

/// One rank's share of an update.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    /// Scored groups.
    Grpo {
        /// Which data.
        data: DataIndex,
        /// Version that drew the candidates.
        rollout_policy: PolicyVersion,
        /// The loss.
        objective: Objective,
        /// Rollout temperature.
        temperature: f64,
        /// Longest answer.
        max_new_tokens: usize,
        /// KL reference directory, when beta > 0; none with [`RunSpec::adapters`](super::RunSpec::adapters).
        reference: Option<PathBuf>,
        /// Sample and its distinct answers.
        groups: Vec<(SampleIndex, Arc<[TrainAnswer]>)>,
    },
    /// Labelled examples.
    Sft {
        /// Which data.
        data: DataIndex,
        /// Which samples; one may occur twice in a batch.
        samples: Vec<SampleIndex>,
    },
}
