//! What coordinator and workers say to each other. Small: ids, token ids, short texts, features.
//! No type here can hold a reference answer, except [`SftExample`], which only a supervised stage sends
//! (INV-9).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{
        Attempt, Digest, Generation, Incarnation, PolicyVersion, SampleId, Step, UnitId, WorkerId,
        WorkerTag,
    },
    settings::{Dtype, Objective, OptimizerSettings, Sampling},
};

/// A worker's first words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and life.
    pub tag: WorkerTag,
    /// Join token of the run.
    pub token: String,
    /// Device it computes on, for people ("cpu", "cuda:0").
    pub device: String,
    /// Address at which other workers reach its collective ("127.0.0.1").
    pub address: String,
    /// Process id on its host, for people.
    pub pid: u32,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name of the run.
    pub run_id: String,
    /// A worker silent for longer is out of the roster, milliseconds.
    pub lease_ttl_ms: u64,
    /// How to set the engine up.
    pub engine: EngineSetup,
}

/// How a worker sets its engine up, before any weights are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSetup {
    /// Hugging Face directory of the starting weights, tokenizer and processor.
    pub model: PathBuf,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// CPU threads of the engine; 0 leaves the choice to libtorch.
    pub threads: usize,
    /// Longest prompt accepted, tokens.
    pub max_prompt_tokens: usize,
    /// Tokens (padding included) that one forward pass may hold.
    pub tokens_per_batch: usize,
    /// Deadline of one collective operation, milliseconds.
    pub collective_timeout_ms: u64,
    /// Train only the language model; vision features are then cached per image.
    pub freeze_vision: bool,
}

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

/// A supervised example, sent in `sft` stages only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftExample {
    /// The question.
    pub prompt: Prompt,
    /// The reference answer.
    pub answer: String,
}

/// What a worker is to do next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Directive {
    /// Nothing now; ask again. `reason` is the core's `explain()`.
    Wait {
        /// What the run waits for.
        reason: String,
    },
    /// Drop the old communicator, form a new one and report what you hold.
    Form(Roster),
    /// Get the weights and moments from somewhere, then report what you hold.
    Restore(Restore),
    /// Draw candidates (or greedy answers).
    Rollout(RolloutUnit),
    /// Compute this rank's share of a gradient, reduce it, and cast a ballot.
    Update(UpdateWork),
    /// The ballot was unanimous and is on record: apply the optimizer step.
    Apply(ApplyWork),
    /// Write a checkpoint's files (rank 0 only).
    Checkpoint(CheckpointWork),
    /// The run is over for this worker: leave.
    Stop {
        /// Why.
        reason: String,
    },
}

/// Who is in a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Number of the roster; prefix of its rendezvous keys.
    pub generation: Generation,
    /// Rank r is `members[r]`.
    pub members: Vec<Member>,
    /// The receiver's rank.
    pub rank: usize,
}

/// One member of a roster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Which worker, in which life.
    pub tag: WorkerTag,
    /// Where its collective listens.
    pub address: String,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// The generation that does it.
    pub generation: Generation,
    /// The version that everyone holds afterwards.
    pub policy: PolicyVersion,
    /// From where.
    pub source: RestoreSource,
}

/// Sources of weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RestoreSource {
    /// The run's starting model: weights only, moments zero.
    Model {
        /// Hugging Face directory.
        dir: PathBuf,
    },
    /// A checkpoint of this run: weights and moments.
    Checkpoint {
        /// Checkpoint directory.
        dir: PathBuf,
    },
    /// Broadcast over the collective from this rank.
    Peer {
        /// The rank that holds the version.
        root: usize,
    },
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
    /// The candidates, by index.
    pub candidates: Vec<Candidate>,
    /// Mean over the candidates' tokens of the policy's entropy at temperature T, nats.
    pub entropy: f32,
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
        /// The loss.
        objective: Objective,
        /// Sampling temperature of the rollout: log-probabilities are taken at it.
        temperature: f64,
        /// Longest answer (dr_grpo divides by it), tokens.
        max_new_tokens: usize,
        /// Weights of the KL reference, when beta > 0.
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
    pub answers: Vec<TrainAnswer>,
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
    /// Rollout log-probabilities, for the importance-ratio metric.
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
    /// Figures of the whole step (reduced over ranks), by name: `loss`, `kl`, `entropy`, `clip_fraction`,
    /// `ratio_mean` (rollout against training), `tokens`, `answers`.
    pub figures: Vec<(String, f64)>,
}

/// Permission to step the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyWork {
    /// The roster that voted.
    pub generation: Generation,
    /// Which step.
    pub step: Step,
    /// Which attempt won.
    pub attempt: Attempt,
    /// The version that the new weights are.
    pub policy: PolicyVersion,
    /// Optimizer settings of the stage.
    pub optimizer: OptimizerSettings,
    /// Learning rate of this step.
    pub lr: f64,
    /// The first step of a stage: moments start from zero.
    pub reset_moments: bool,
}

/// What to write into a checkpoint's directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointWork {
    /// The roster that does it.
    pub generation: Generation,
    /// After which step.
    pub step: Step,
    /// The version to write.
    pub policy: PolicyVersion,
    /// A fresh directory; the coordinator writes the manifest once the files are reported.
    pub dir: PathBuf,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name within the directory.
    pub name: String,
    /// Size, bytes.
    pub bytes: u64,
    /// BLAKE3 of its contents.
    pub digest: Digest,
}

/// A worker's report: who, where in the run, and what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender.
    pub from: WorkerTag,
    /// Generation of the directive that it answers.
    pub generation: Generation,
    /// Step of that directive.
    pub step: Step,
    /// Attempt of that directive.
    pub attempt: Attempt,
    /// What happened.
    pub body: Report,
}

/// What a worker holds in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Version of its weights.
    pub policy: PolicyVersion,
    /// Digest of weights, moments and version.
    pub digest: Digest,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The communicator stands.
    Formed {
        /// What this rank holds; none on a fresh worker.
        holding: Option<Holding>,
    },
    /// Weights are in place.
    Restored {
        /// What this rank holds now.
        holding: Holding,
    },
    /// A unit is done.
    RolloutDone {
        /// Which.
        unit: UnitId,
        /// Drawn with.
        policy: PolicyVersion,
        /// A group per prompt, in order.
        groups: Vec<Group>,
    },
    /// A gradient is reduced.
    Ballot(Ballot),
    /// The optimizer step is applied.
    Applied {
        /// What this rank holds now.
        holding: Holding,
    },
    /// The checkpoint's files are on disk and synced.
    CheckpointWritten {
        /// The files.
        files: Vec<FileEntry>,
    },
    /// A collective operation failed or timed out; the communicator is gone.
    CollectiveFailed {
        /// Which operation.
        operation: String,
        /// What it said.
        error: String,
    },
    /// The directive could not be carried out.
    Failed {
        /// What was tried.
        what: String,
        /// Why not, with the way out.
        error: String,
        /// Whether another try (or another worker) may do better.
        retryable: bool,
    },
}

/// Why a report was turned away. Counted and visible, never silent.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Not a member: never joined, or its lease ran out.
    #[error("this worker is not a member of the run (never joined, or its lease ran out)")]
    UnknownWorker,
    /// An earlier life of a worker that has joined again.
    #[error("this is an earlier life of the worker")]
    StaleIncarnation,
    /// From an earlier roster.
    #[error("the report belongs to an earlier generation")]
    StaleGeneration,
    /// From an earlier step.
    #[error("the report belongs to another step")]
    StaleStep,
    /// From a voided attempt.
    #[error("the report belongs to a voided attempt")]
    StaleAttempt,
    /// Drawn with other weights.
    #[error("the report belongs to another policy version")]
    StalePolicy,
    /// No such unit is outstanding.
    #[error("no such unit of work is outstanding")]
    UnknownUnit,
    /// Already had.
    #[error("this was reported already")]
    Duplicate,
    /// Nothing of the kind is awaited in this phase, or its contents do not fit what was asked.
    #[error("nothing of the kind is awaited now")]
    Unexpected,
}

/// Why a worker may not join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    /// Wrong token: little is said to the caller on purpose.
    #[error("not admitted to this run")]
    NotAdmitted,
    /// A later life of the same worker has joined.
    #[error("worker {0} has already joined in a later life")]
    OldLife(WorkerId),
    /// The roster is full.
    #[error("the run has its max_workers already")]
    Full,
    /// The run is over.
    #[error("the run is over")]
    Over,
}

/// The incarnation of a life that starts now: microseconds since 1970, so later lives are larger.
#[must_use]
pub fn incarnation_at(since_epoch: std::time::Duration) -> Incarnation {
    Incarnation(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
}

/// A worker as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Which worker.
    pub worker: WorkerId,
    /// Its rank in the current generation.
    pub rank: Option<usize>,
    /// Its device.
    pub device: String,
    /// Milliseconds since it was heard of.
    pub silent_ms: u64,
}
