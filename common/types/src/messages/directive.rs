//! What a worker is to do next.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Attempt, Generation, PolicyVersion, Step, WorkerTag},
    settings::OptimizerSettings,
};

use super::*;

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
    /// Write a checkpoint's files: rank 0, or every rank where the optimizer is sharded.
    Checkpoint(CheckpointWork),
    /// The run is over for this worker: leave.
    Stop {
        /// Why.
        reason: String,
        /// The run has drained: whoever resumes it needs workers.
        drained: bool,
    },
}

/// Who is in a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Number of the roster; prefix of its rendezvous keys.
    pub generation: Generation,
    /// Rank r is `members[r]`.
    pub members: Arc<[Member]>,
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
