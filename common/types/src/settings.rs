//! Settings that mean the same in the run file, on the wire and in the code that obeys them.
//! Their doc comments become docs/config.md. Defaults are ours: the paper publishes none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How candidates are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Candidates per question (N).
    pub n: usize,
    /// Softmax temperature T; 0 means greedy.
    pub temperature: f64,
    /// Nucleus: keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f64,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Longest answer, in tokens, the end-of-turn token included.
    pub max_new_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { n: 16, temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 32 }
    }
}

/// Which candidate becomes the pseudo label (FPL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// Nearest to the mean of all candidates' embeddings.
    Centroid,
    /// Nearest to the centre of the heaviest cluster of answers.
    Cluster,
    /// The most frequent normalised answer (TTRL).
    Majority,
}

/// Pseudo label settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LabelSettings {
    /// How the pseudo label is chosen.
    pub kind: LabelKind,
    /// Cosine at and above which two clusters of answers are joined (average link).
    pub threshold: f64,
    /// A group whose chosen cluster holds a smaller share of the candidates abstains; 0 never does.
    pub min_share: f64,
    /// A group whose chosen cluster leads the second by a smaller share abstains; 0 never does.
    pub min_margin: f64,
}

impl Default for LabelSettings {
    fn default() -> Self {
        Self { kind: LabelKind::Cluster, threshold: 0.6, min_share: 0.0, min_margin: 0.0 }
    }
}

/// What turns an answer into a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbedderKind {
    /// Hashed character n-grams with inverse document frequency over the answers seen so far.
    Lexical,
    /// Mean over answer tokens of the policy's last hidden state, from the worker that drew it.
    Policy,
}

/// Embedder settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedderSettings {
    /// Which embedder.
    pub kind: EmbedderKind,
    /// Lexical only: buckets that n-grams are hashed into.
    pub dims: usize,
    /// Lexical only: shortest n-gram, in characters.
    pub min_gram: usize,
    /// Lexical only: longest n-gram, in characters.
    pub max_gram: usize,
}

impl Default for EmbedderSettings {
    fn default() -> Self {
        Self { kind: EmbedderKind::Lexical, dims: 4096, min_gram: 2, max_gram: 4 }
    }
}

/// How hard and soft scores become one reward (HSR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// 1 for an exact match, else w_token·token + w_sem·sem (below 1 by construction).
    Hierarchical,
    /// Weighted mean of exact match, token score and similarity.
    Sum,
}

/// Reward settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSettings {
    /// How the scores are joined.
    pub kind: RewardKind,
    /// Weight of the exact match (`sum` only).
    pub w_hard: f64,
    /// Weight of the token F1.
    pub w_token: f64,
    /// Weight of the embedding similarity.
    pub w_sem: f64,
}

impl Default for RewardSettings {
    fn default() -> Self {
        Self { kind: RewardKind::Hierarchical, w_hard: 1.0, w_token: 0.25, w_sem: 0.25 }
    }
}

/// How rewards become advantages; names and meaning as in TRL's `scale_rewards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// Divide by the group's standard deviation.
    Group,
    /// Divide by the standard deviation over the rollout's groups that have a consensus; with dynamic sampling
    /// over those that train.
    Batch,
    /// Only subtract the group's mean.
    None,
}

/// The loss and its normalisation; names and meaning as in TRL's `loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over answers of each answer's mean over tokens.
    Grpo,
    /// Mean over all tokens of the step.
    Dapo,
    /// Sum over tokens divided by (answers × max_new_tokens).
    DrGrpo,
    /// Mean over the tokens of the batch, which here is the whole step: all its groups, over all ranks. So it
    /// equals `dapo`; in TRL it is the mean of the micro-batches' means.
    Bnpo,
    /// Mean over all tokens of the step of −min(ratio, clip_high) · advantage · log-probability, the ratio
    /// held constant. `clip_high` bounds the ratio itself and must be at least 1 (5.0 is usual); `clip_low` is
    /// not used.
    Cispo,
    /// `grpo` with `importance_sampling_level = "sequence"`, whatever that key says; in TRL these two settings.
    Gspo,
}

/// What one importance ratio is taken over; names and meaning as in TRL's `importance_sampling_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceLevel {
    /// Each token has its own.
    Token,
    /// One an answer: the geometric mean of its tokens' ratios.
    Sequence,
}

/// How KL(policy ‖ reference) is estimated from an answer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// d. Unbiased as a figure; its gradient is 0 on average and does not hold the policy back.
    K1,
    /// d² / 2. Biased as a figure; its gradient is that of KL(policy ‖ reference) on average.
    K2,
    /// exp(−d) + d − 1, TRL's. Unbiased as a figure, never negative; its gradient is that of
    /// KL(reference ‖ policy) on average.
    K3,
}

/// The policy objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// The loss and its normalisation.
    pub loss_type: LossType,
    /// Reward scaling within a group or batch.
    pub scale_rewards: ScaleRewards,
    /// Weight of KL(policy ‖ reference); 0 needs no reference. The reference is the weights at the start of the
    /// stage. With `[lora]` it is the base model with the adapter off, in every stage: it is in memory already,
    /// and a second copy of the model is never made.
    pub beta: f64,
    /// Lower clip: the ratio is kept above 1 − clip_low. Not used with `cispo`.
    pub clip_low: f64,
    /// Upper clip: the ratio is kept below 1 + clip_high; with `cispo` below clip_high.
    pub clip_high: f64,
    /// Optimizer steps on the groups of one rollout (μ), TRL's `num_iterations`. The first takes the importance
    /// ratio against the policy itself, so it is exactly 1; the others against the rollout's own
    /// log-probabilities. Evaluations and checkpoints wait for the last one. A stage's last rollout may get fewer.
    pub num_iterations: u64,
    /// What one importance ratio is taken over. In the first update of a rollout the ratio is 1 and both levels
    /// give the same step, unless importance_cap corrects an answer's tokens differently.
    pub importance_sampling_level: ImportanceLevel,
    /// How the KL is estimated at each token, from d = log policy − log reference there. The estimate itself is
    /// differentiated. Not used while beta is 0.
    pub kl_estimator: KlEstimator,
    /// Weight of the bonus for entropy, TRL's `entropy_coef`: entropy_weight times the mean entropy (nats) over
    /// all tokens of the step is subtracted from the loss, whatever the loss_type.
    pub entropy_weight: f64,
    /// Truncated importance sampling: each token's policy loss is multiplied by min(training probability /
    /// rollout probability, importance_cap). TRL's `vllm_importance_sampling_clip_max` in its mode
    /// `token_truncate`. 0 turns it off, else at least 1. It corrects the first update of a rollout; from the
    /// second on (num_iterations) the clipped ratio is itself taken against the rollout, so nothing is left to
    /// correct.
    pub importance_cap: f64,
}

impl Objective {
    /// Whether an answer has one importance ratio.
    #[must_use]
    pub fn by_sequence(&self) -> bool {
        self.loss_type == LossType::Gspo
            || self.importance_sampling_level == ImportanceLevel::Sequence
    }
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            scale_rewards: ScaleRewards::Group,
            beta: 0.5,
            clip_low: 0.2,
            clip_high: 0.2,
            num_iterations: 1,
            importance_sampling_level: ImportanceLevel::Token,
            kl_estimator: KlEstimator::K3,
            entropy_weight: 0.0,
            importance_cap: 0.0,
        }
    }
}

/// Shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to `final_fraction` at the stage's last step.
    Linear,
    /// Falls along a half cosine to `final_fraction` at the stage's last step.
    Cosine,
}

/// AdamW with decoupled weight decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub lr: f64,
    /// First moment decay.
    pub beta1: f64,
    /// Second moment decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly from 0 to its peak.
    pub warmup_steps: u64,
    /// Shape after the warm-up.
    pub schedule: Schedule,
    /// Share of the peak that is left at the stage's end.
    pub final_fraction: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it. 0 never clips.
    pub clip_norm: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            lr: 1e-6,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.0,
            warmup_steps: 5,
            schedule: Schedule::Linear,
            final_fraction: 0.0,
            clip_norm: 1.0,
        }
    }
}

impl OptimizerSettings {
    /// Learning rate at a stage's `step` (from 1) of `total`.
    #[must_use]
    pub fn lr_at(&self, step: u64, total: u64) -> f64 {
        let warm = self.warmup_steps.max(1) as f64;
        let rise = (step as f64 / warm).min(1.0);
        let through = (step.saturating_sub(1)) as f64 / total.max(1) as f64;
        let shape = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - through,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * through).cos()),
        };
        self.lr * rise * (self.final_fraction + (1.0 - self.final_fraction) * shape)
    }
}

/// Number type of the weights on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16 weights.
    Bf16,
}

/// What the ranks of a run split among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shard {
    /// Nothing: every rank holds weights, gradients and moments whole.
    None,
    /// Moments and f32 masters: each worker steps its own part of the parameters, and the parts are gathered.
    /// With W workers that saves 8 bytes (12 with bf16 weights) · (1 − 1/W) a trained number on each. The price: a
    /// worker that is lost takes its part with it, so the run then goes back to its last checkpoint and does the
    /// steps since then again; keep `checkpoint.every_steps` small. A worker that joins costs nothing. Restoring
    /// from a checkpoint, the workers wait for the slowest: `cluster.collective_timeout_s` must allow for that.
    Optimizer,
}

/// How training spends memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Keep only each layer's input in the forward pass and compute the layer again in the backward pass: much
    /// less memory for about a third more work. The gradients are the same.
    pub recompute: bool,
    /// What the ranks split among themselves.
    pub shard: Shard,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self { recompute: false, shard: Shard::None }
    }
}

/// Low-rank adapters (LoRA) beside frozen weights: `y = W x + (alpha / rank) · B A x`. Names as in PEFT's
/// `LoraConfig`; dropout is 0. Adapters are f32 whatever `model.dtype` says. Checkpoints hold the adapter in
/// PEFT's layout; `medevo-worker merge` makes a whole model of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank of the adapters, PEFT's `r`.
    pub rank: usize,
    /// PEFT's `lora_alpha`; the adapter is scaled by alpha / rank.
    pub alpha: f64,
    /// Linear layers that get an adapter, as PEFT's `target_modules` lists them: a layer is meant whose name
    /// is one of these, or ends in a dot and one of these. Several layers of the vision tower are called like
    /// the language model's (`gate_proj`, `up_proj`, `down_proj`); `model.freeze_vision = true` leaves all of
    /// the tower out.
    pub targets: Vec<String>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank: 16, alpha: 32.0, targets: targets.map(str::to_owned).to_vec() }
    }
}
