//! What is learned from, and the vote on it.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Attempt, Digest, Generation, PolicyVersion, Step},
    settings::Objective,
};

use super::*;

/// A supervised example, sent in `sft` stages only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftExample {
    /// The question.
    pub prompt: Prompt,
    /// The reference answer.
    pub answer: String,
}

/// One rank's share of one attempt at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateWork {
    /// The roster that reduces.
    pub generation: Generation,
    /// Which step.
    pub step: Step,
    /// Which try at it.
    pub attempt: Attempt,
    /// Weights that the gradient is taken at.
    pub policy: PolicyVersion,
    /// What to learn from.
    pub batch: Batch,
}

/// What to learn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Batch {
    /// Scored groups.
    Grpo {
        /// Version of the weights that drew the candidates. `UpdateWork::policy` in the first update of a rollout,
        /// an earlier one in those that follow (`num_iterations`): there the importance ratio is taken against
        /// [`TrainAnswer::logprobs`], here against the policy itself.
        rollout_policy: PolicyVersion,
        /// The loss.
        objective: Objective,
        /// Sampling temperature of the rollout: log-probabilities are taken at it.
        temperature: f64,
        /// Longest answer (dr_grpo divides by it), tokens.
        max_new_tokens: usize,
        /// Weights of the KL reference, when beta > 0; none where adapters are trained, whose reference is the
        /// base without them.
        reference: Option<PathBuf>,
        /// This rank's groups; may be empty.
        groups: Vec<TrainGroup>,
    },
    /// Labelled examples.
    Sft {
        /// This rank's examples; may be empty.
        examples: Vec<SftExample>,
    },
}

/// A scored group, identical candidates joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainGroup {
    /// The prompt.
    pub prompt: Prompt,
    /// Distinct answers.
    pub answers: Arc<[TrainAnswer]>,
}

/// A distinct answer of a scored group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainAnswer {
    /// Token ids, the end-of-turn token included when it was drawn.
    pub ids: Vec<u32>,
    /// How many candidates were identical to it.
    pub count: u32,
    /// Advantage of each of them.
    pub advantage: f64,
    /// Rollout log-probabilities, for the importance ratio, its metric and `importance_cap`.
    pub logprobs: Vec<f32>,
}

/// One rank's vote on an attempt. All but `rank_tokens` must agree over the ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ballot {
    /// Digest of the reduced gradient.
    pub gradient: Digest,
    /// Whether every number in it is finite.
    pub finite: bool,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// Figures of the whole step (reduced over ranks), by name: `loss`, `kl`, `entropy`, `clip_fraction` and
    /// its parts `clip_low_fraction` and `clip_high_fraction`, `ratio_mean` (training against rollout), `tokens`,
    /// `answers`.
    pub figures: Vec<(String, f64)>,
}
