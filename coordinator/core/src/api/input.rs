//! What goes in.

use std::sync::Arc;

use medevo_types::{
    PolicyVersion, Step, WorkerTag,
    messages::{Envelope, TrainAnswer},
};

use super::*;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The coordinator itself was away until now: the workers' silence meanwhile means nothing.
    Woken,
    /// A worker asks to be let in (its token is already checked). Reply: [`Reply::Join`].
    Join {
        /// Who.
        tag: WorkerTag,
        /// Device, for people.
        device: String,
        /// Where its collective listens.
        address: String,
    },
    /// A worker is alive. Reply: [`Reply::Ack`].
    Heartbeat(WorkerTag),
    /// Somebody knows that a worker is gone (its process was reaped): no need to wait for the lease.
    Gone(WorkerTag),
    /// A worker asks what to do. Asking again gives the same order until it is reported done.
    /// Reply: [`Reply::Order`].
    Pull(WorkerTag),
    /// A worker reports. Reply: [`Reply::Ack`].
    Report(Box<Envelope>),
    /// Scoring of the step is done.
    Scored(Scored),
    /// Scoring of the step failed: never a zero reward; the step is scored again.
    ScoringFailed {
        /// Which step.
        step: Step,
        /// What went wrong.
        error: String,
    },
    /// The manifest is written and synced: the pointer may move.
    ManifestWritten(CheckpointRef),
    /// The files or the manifest were not good.
    CheckpointFailed {
        /// After which step.
        step: Step,
        /// What went wrong.
        error: String,
    },
    /// Stop at the next step boundary, with a checkpoint; steps that use one rollout are not parted.
    Drain {
        /// Why.
        reason: String,
    },
}

/// Scores of one step's groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Which step.
    pub step: Step,
    /// Drawn with.
    pub policy: PolicyVersion,
    /// As [`Effect::Score`] said.
    pub earlier: usize,
    /// One per group, in the order of [`Effect::Score`].
    pub groups: Vec<GroupVerdict>,
    /// Label-free figures of the step, by name, for the event stream.
    pub figures: Vec<(String, f64)>,
}

/// What becomes of a group.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupVerdict {
    /// It trains: identical candidates joined.
    Train(Arc<[TrainAnswer]>),
    /// No consensus.
    Abstained,
    /// All rewards equal.
    NoVariance,
}
