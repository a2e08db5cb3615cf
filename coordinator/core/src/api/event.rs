//! The event stream.

use std::path::PathBuf;

use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, Term, UnitId, WorkerId, messages::Rejection,
};
use serde::{Deserialize, Serialize};

use super::*;

/// The event stream: dashboard, report and metrics are views of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The coordinator took over or started.
    Started {
        /// Its term.
        term: Term,
        /// Where it goes on from.
        step: Step,
    },
    /// A worker joined.
    WorkerJoined {
        /// Which.
        worker: WorkerId,
        /// Its device.
        device: String,
    },
    /// A worker is out of the roster.
    WorkerLost {
        /// Which.
        worker: WorkerId,
        /// Why ("lease ran out", "process ended", ...).
        reason: String,
    },
    /// A roster was opened.
    GenerationOpened {
        /// Its number.
        generation: Generation,
        /// Rank r is the r-th.
        workers: Vec<WorkerId>,
        /// Why ("start", "w1 lost", ...).
        reason: String,
    },
    /// The run entered a phase.
    Phase {
        /// Its name, lower case.
        phase: String,
        /// Current step.
        step: Step,
        /// Current generation.
        generation: Generation,
    },
    /// All ranks hold the same weights.
    DigestsAgree {
        /// Version.
        policy: PolicyVersion,
        /// Digest.
        digest: Digest,
        /// Generation.
        generation: Generation,
    },
    /// A unit was handed out again.
    UnitReissued {
        /// Which.
        unit: UnitId,
        /// Who had it.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// Candidates that were scored before the run was interrupted are used again.
    RolloutKept {
        /// Of which step.
        step: Step,
        /// How many groups.
        groups: usize,
    },
    /// A report was turned away.
    Rejected {
        /// Who sent it.
        worker: WorkerId,
        /// Why.
        reason: Rejection,
        /// What it was ("ballot", "rollout_done", ...).
        report: String,
    },
    /// A try at an update came to nothing.
    AttemptVoided {
        /// Which step.
        step: Step,
        /// Which try.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
    /// A step is committed (or passed without an update: `trained` = 0).
    StepCommitted {
        /// Name of the stage.
        stage: String,
        /// Which step.
        step: Step,
        /// Step within the stage, from 1.
        stage_step: u64,
        /// The version that holds now.
        policy: PolicyVersion,
        /// Which attempt.
        attempt: Attempt,
        /// Generation.
        generation: Generation,
        /// Learning rate.
        lr: f64,
        /// Groups that trained.
        trained: usize,
        /// Figures by name: the scorer's, the ballot's, and `grad_norm`.
        figures: std::collections::BTreeMap<String, f64>,
        /// Milliseconds spent in each phase of the step, by phase.
        millis: std::collections::BTreeMap<String, u64>,
    },
    /// Commits after `to` no longer stand.
    RolledBack {
        /// Last committed step before.
        from: Step,
        /// Last committed step now.
        to: Step,
        /// Why.
        reason: String,
    },
    /// A checkpoint is published.
    CheckpointPublished {
        /// After which step.
        step: Step,
        /// Where.
        dir: PathBuf,
    },
    /// A checkpoint could not be written; the run goes on.
    CheckpointFailed {
        /// After which step.
        step: Step,
        /// Why.
        error: String,
    },
    /// A stage begins.
    StageStarted {
        /// Its name.
        stage: String,
        /// "sft", "rl" or "evaluate".
        kind: String,
    },
    /// An evaluation pass is complete (the driver adds its figures as an event of its own).
    PassDone {
        /// Stage.
        stage: String,
        /// Pass.
        pass: String,
        /// After which step.
        step: Step,
    },
    /// The run is over.
    Finished(Outcome),
}
