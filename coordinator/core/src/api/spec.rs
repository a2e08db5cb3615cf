//! What a run is to do, and where it stands.

use std::path::PathBuf;

use medevo_types::settings::{Objective, OptimizerSettings, Sampling};
use serde::{Deserialize, Serialize};

/// Milliseconds on the driver's monotonic clock.
pub type Millis = u64;

/// Index of a sample in a data set, in file order.
pub type SampleIndex = usize;

/// Index of a data set in the run's list of data sets.
pub type DataIndex = usize;

/// What a run is to do; fixed for its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Seed of the sample order.
    pub seed: u64,
    /// Starting model directory.
    pub model: PathBuf,
    /// Low-rank adapters are trained. The weights under them stay, are in every worker's memory and are the KL
    /// reference, so that a stage needs no checkpoint for it.
    pub adapters: bool,
    /// Where checkpoints go; each in a fresh `step-NNNNNN[-k]` below it.
    pub checkpoints: PathBuf,
    /// What to do, in order.
    pub stages: Vec<StageSpec>,
    /// A generation needs at least this many workers.
    pub min_workers: usize,
    /// More are refused.
    pub max_workers: usize,
    /// Forming waits `grace_ms` for this many, or for `max_workers` if that is fewer.
    pub expected_workers: usize,
    /// Prompts in one rollout unit.
    pub prompts_per_unit: usize,
    /// A checkpoint every so many steps (and always at a training stage's end); 0: only then.
    pub checkpoint_every: u64,
    /// Every rank holds a part of the optimizer's state: each writes its own into a checkpoint, and the loss of one
    /// sends the run back to the last checkpoint.
    pub sharded: bool,
    /// A step voided this many times fails the run.
    pub max_attempts: u64,
    /// Deadlines.
    pub deadlines: Deadlines,
}

impl RunSpec {
    /// What Forming waits for during the grace time.
    pub(crate) fn wanted_workers(&self) -> usize {
        self.expected_workers.min(self.max_workers).max(1)
    }
}

/// Every wait has one, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deadlines {
    /// A worker not heard of for this long is lost.
    pub lease_ttl_ms: Millis,
    /// How long Forming waits for expected_workers once min_workers are there.
    pub grace_ms: Millis,
    /// How long a run waits for min_workers before it fails.
    pub starve_ms: Millis,
    /// Communicator and Formed reports.
    pub form_ms: Millis,
    /// Weights in place.
    pub restore_ms: Millis,
    /// One rollout unit; an overdue one is handed out again.
    pub unit_ms: Millis,
    /// FPL and HSR of one step.
    pub score_ms: Millis,
    /// All ballots.
    pub update_ms: Millis,
    /// All Applied reports.
    pub apply_ms: Millis,
    /// Checkpoint files and manifest.
    pub checkpoint_ms: Millis,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Its name in the run file.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StageKind {
    /// Supervised steps on labelled data.
    Sft {
        /// Which data.
        data: DataIndex,
        /// How many samples it has.
        samples: usize,
        /// Examples a step, over all ranks.
        batch: usize,
        /// Consecutive samples that stay together in the order.
        together: usize,
        /// Steps.
        steps: u64,
        /// Optimizer.
        optimizer: OptimizerSettings,
    },
    /// Label-free reinforcement learning.
    Rl {
        /// Which data.
        data: DataIndex,
        /// How many samples it has.
        samples: usize,
        /// Questions a rollout.
        questions: usize,
        /// Dynamic sampling: rounds of further questions that a rollout may draw while fewer than `questions`
        /// groups train.
        #[serde(default)]
        extra_rounds: u64,
        /// Optimizer steps; `objective.num_iterations` of them use one rollout.
        steps: u64,
        /// How candidates are drawn.
        sampling: Sampling,
        /// Whether the embedder needs policy features.
        features: bool,
        /// The loss. With beta > 0 the reference is the checkpoint (or model) at the stage's start; with
        /// [`RunSpec::adapters`] the model without its adapter.
        objective: Objective,
        /// Optimizer.
        optimizer: OptimizerSettings,
        /// Evaluation passes every so many steps of the stage; 0 never.
        evaluate_every: u64,
        /// Those passes.
        passes: Vec<EvalPass>,
    },
    /// Measure.
    Evaluate {
        /// What to measure.
        passes: Vec<EvalPass>,
    },
}

/// One pass over one evaluation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalPass {
    /// Its name ("target greedy").
    pub name: String,
    /// Which data.
    pub data: DataIndex,
    /// How many samples it has.
    pub samples: usize,
    /// Greedy (temperature 0, n 1), or N answers for maj@N.
    pub sampling: Sampling,
}

/// Where a run stands between two pieces of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Index of the stage.
    pub stage: usize,
    /// Steps of that stage that are committed (evaluate stages: passes done).
    pub done: u64,
    /// Questions that dynamic sampling has drawn in that stage beyond `questions` a rollout: the order goes on
    /// behind them. Records of earlier versions do not have it.
    #[serde(default)]
    pub extra: u64,
}
