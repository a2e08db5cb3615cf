//! How a worker comes into a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Incarnation, Term, WorkerId, WorkerTag},
    settings::{Dtype, LoraSettings, TrainSettings},
};

/// A worker's first words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and life.
    pub tag: WorkerTag,
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
    /// Hugging Face directory of the starting weights, tokenizer and processor, or that of an adapter beside them.
    pub model: PathBuf,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// CPU threads of the engine; 0 leaves the choice to libtorch.
    pub threads: usize,
    /// Longest prompt accepted, tokens.
    pub max_prompt_tokens: usize,
    /// Tokens that one forward pass may hold.
    pub tokens_per_batch: usize,
    /// Deadline of one collective operation, milliseconds.
    pub collective_timeout_ms: u64,
    /// Train only the language model; vision features are then cached per image.
    pub freeze_vision: bool,
    /// How training spends memory.
    pub train: TrainSettings,
    /// Train low-rank adapters instead of the weights.
    pub lora: Option<LoraSettings>,
}

/// Why a worker may not join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    /// A later life of the same worker has joined.
    #[error("worker {0} has already joined in a later life")]
    OldLife(WorkerId),
    /// The roster is full.
    #[error("the run has its max_workers already")]
    Full,
    /// The run is over.
    #[error("the run is over")]
    Over,
    /// This coordinator leads the run no longer: find the one that does.
    #[error("this coordinator leads the run no longer")]
    NotLeader,
}

/// Who leads a run, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its term.
    pub term: Term,
    /// Where workers reach it, HOST:PORT.
    pub address: String,
    /// Its process and the moment of its campaign, so that no two leads say the same.
    pub life: String,
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
