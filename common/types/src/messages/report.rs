//! What a worker says happened, and why it may be turned away.

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Digest, Generation, PolicyVersion, Step, UnitId, WorkerTag};

use super::*;

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
    /// Nothing was ordered: the worker leaves on purpose, and need not be waited for.
    Leaving,
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
    /// This coordinator leads the run no longer: find the one that does.
    #[error("this coordinator leads the run no longer")]
    NotLeader,
    /// Already had.
    #[error("this was reported already")]
    Duplicate,
    /// Nothing of the kind is awaited in this phase, or its contents do not fit what was asked.
    #[error("nothing of the kind is awaited now")]
    Unexpected,
}
