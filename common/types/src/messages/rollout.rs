//! Questions out, candidates back.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{PolicyVersion, SampleId, Step, UnitId},
    settings::Sampling,
};

/// A question as workers see it: no answer, pixels by reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prompt {
    /// Which sample.
    pub sample: SampleId,
    /// Image files, in prompt order; empty for a text-only question.
    pub images: Vec<PathBuf>,
    /// The question.
    pub question: String,
}

/// Why answers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Candidates to learn from.
    Train,
    /// Answers to measure with.
    Evaluate,
}

/// Prompts to answer with one policy version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutUnit {
    /// Which unit.
    pub unit: UnitId,
    /// Weights to use; a worker that holds others refuses.
    pub policy: PolicyVersion,
    /// Step it belongs to.
    pub step: Step,
    /// Training or evaluation.
    pub purpose: Purpose,
    /// How to draw. Temperature 0 is greedy.
    pub sampling: Sampling,
    /// Also return each candidate's policy feature.
    pub features: bool,
    /// The prompts; one group each.
    pub prompts: Vec<Prompt>,
}

/// One drawn answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Token ids, the end-of-turn token included when it was drawn.
    pub ids: Vec<u32>,
    /// Decoded text without special tokens, trimmed.
    pub text: String,
    /// Log-probability of each token under the policy at temperature T before truncation (T = 1 for
    /// greedy answers).
    pub logprobs: Vec<f32>,
    /// False when max_new_tokens cut it.
    pub finished: bool,
    /// L2-normalised mean of the last hidden states over the answer's tokens, if asked for.
    pub feature: Option<Vec<f32>>,
}

/// All candidates of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Which sample.
    pub sample: SampleId,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// The candidates, by index; shared, because the coordinator hands groups of a whole step around.
    pub candidates: Arc<[Candidate]>,
    /// Mean over the candidates' tokens of the policy's entropy at temperature T, nats.
    pub entropy: f32,
}
