//! What goes into the machine and what comes out of it.
//!
//! The driver feeds [`Input`]s with the time they happened at, persists [`Output::records`] in one
//! transaction guarded by its term, appends [`Output::events`] to the run's event stream, and only then
//! carries out [`Output::effects`] and hands [`Output::reply`] back (persist, then act).

use std::path::PathBuf;

use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, Term, UnitId, WorkerId, WorkerTag,
    messages::{
        Ballot, Envelope, FileEntry, Group, JoinRefused, Purpose, Rejection, Restore, Roster,
        TrainAnswer, WorkerView,
    },
    settings::{Objective, OptimizerSettings, Sampling},
};
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
    /// Where checkpoints go; each in a fresh `step-NNNNNN[-k]` below it.
    pub checkpoints: PathBuf,
    /// What to do, in order.
    pub stages: Vec<StageSpec>,
    /// A generation needs at least this many workers.
    pub min_workers: usize,
    /// More are refused; Forming waits `grace_ms` for this many.
    pub max_workers: usize,
    /// Prompts in one rollout unit.
    pub prompts_per_unit: usize,
    /// A checkpoint every so many steps (and always at a training stage's end); 0: only then.
    pub checkpoint_every: u64,
    /// A step voided this many times fails the run.
    pub max_attempts: u64,
    /// Deadlines.
    pub deadlines: Deadlines,
}

/// Every wait has one, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deadlines {
    /// A worker not heard of for this long is lost.
    pub lease_ttl_ms: Millis,
    /// How long Forming waits for max_workers once min_workers are there.
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
        /// Questions a step.
        questions: usize,
        /// Steps.
        steps: u64,
        /// How candidates are drawn.
        sampling: Sampling,
        /// Whether the embedder needs policy features.
        features: bool,
        /// The loss. With beta > 0 the reference is the checkpoint (or model) at the stage's start.
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
}

/// What the store knew when the coordinator started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// This coordinator's term; larger than any before.
    pub term: Term,
    /// The last generation ever opened.
    pub generation: Generation,
    /// The last step whose commit is on record and was not rolled back.
    pub committed: Step,
    /// The last step that was ever committed, rolled back or not: directories of its checkpoints may exist.
    pub reached: Step,
    /// The checkpoint that the pointer names and whose hashes were found good.
    pub checkpoint: Option<CheckpointRef>,
    /// Checkpoint at the start of the current rl stage, if it has begun and is not the model itself.
    pub reference: Option<PathBuf>,
}

/// A published checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Its directory.
    pub dir: PathBuf,
    /// Last committed step in it.
    pub step: Step,
    /// Its weights.
    pub policy: PolicyVersion,
    /// Where the run goes on from.
    pub position: Position,
    /// Digest that every worker must report once restored (same as [`Holding::digest`]).
    ///
    /// [`Holding::digest`]: medevo_types::messages::Holding::digest
    pub holding: Digest,
    /// KL reference of the stage that it lies in.
    pub reference: Option<PathBuf>,
    /// No update of the stage that it lies in has been made yet (its steps so far were passed): the first
    /// one must start the optimizer's moments from zero. Records of earlier versions say nothing of it.
    #[serde(default)]
    pub untrained: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time passed.
    Tick,
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
    /// Stop at the next step boundary, with a checkpoint.
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
    /// One per group, in the order of [`Effect::Score`].
    pub groups: Vec<GroupVerdict>,
    /// Label-free figures of the step, by name, for the event stream.
    pub figures: Vec<(String, f64)>,
}

/// What becomes of a group.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupVerdict {
    /// It trains: identical candidates joined.
    Train(Vec<TrainAnswer>),
    /// No consensus.
    Abstained,
    /// All rewards equal.
    NoVariance,
}

/// What the driver has to do, in this order: records, events, effects, reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// To be on disk before anything below happens.
    pub records: Vec<Record>,
    /// For the event stream.
    pub events: Vec<Event>,
    /// To be carried out.
    pub effects: Vec<Effect>,
    /// For whoever asked.
    pub reply: Option<Reply>,
    /// Whether some worker's order may have changed: wake the long polls.
    pub wake: bool,
}

/// What survives the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A generation is opened.
    Generation(Generation),
    /// An update is decided: the one commit of this step.
    Commit {
        /// Which step.
        step: Step,
        /// Which attempt.
        attempt: Attempt,
        /// In which generation.
        generation: Generation,
        /// The version it makes.
        policy: PolicyVersion,
        /// Digest of the reduced gradient that all ranks voted for.
        gradient: Digest,
    },
    /// Commits after `step` are void: the weights are those of a checkpoint again.
    Rollback {
        /// Last step that still stands.
        step: Step,
    },
    /// The checkpoint pointer moves here.
    Checkpoint(CheckpointRef),
    /// The run is over.
    Finished(Outcome),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every stage is done.
    Done,
    /// Drained on purpose; `resume` goes on.
    Drained {
        /// Why.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

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

/// Something only the driver can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Do FPL and HSR over these groups; answer with [`Input::Scored`] or [`Input::ScoringFailed`].
    Score {
        /// Index of the rl stage.
        stage: usize,
        /// Which step.
        step: Step,
        /// Drawn with.
        policy: PolicyVersion,
        /// The groups with the sample that each belongs to.
        groups: Vec<(SampleIndex, Group)>,
    },
    /// Check the files, write and sync the manifest; answer with [`Input::ManifestWritten`] or
    /// [`Input::CheckpointFailed`].
    WriteManifest {
        /// What the pointer will say.
        checkpoint: CheckpointRef,
        /// What rank 0 wrote.
        files: Vec<FileEntry>,
    },
    /// Score an evaluation pass.
    Evaluated {
        /// Index of the stage that it belongs to.
        stage: usize,
        /// The pass.
        pass: EvalPass,
        /// After which step.
        step: Step,
        /// Version of the weights.
        policy: PolicyVersion,
        /// One per sample, in order.
        groups: Vec<(SampleIndex, Group)>,
    },
    /// The run is over: let the workers go and leave.
    Finish(Outcome),
}

/// Answer to the one who asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Input::Join`].
    Join(Result<(), JoinRefused>),
    /// To [`Input::Heartbeat`] and [`Input::Report`].
    Ack(Result<(), Rejection>),
    /// To [`Input::Pull`].
    Order(Result<Order, Rejection>),
}

/// A directive with samples as indices; the driver puts questions and images in (never answers,
/// except in an sft stage).
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Ask again later.
    Wait {
        /// `explain()`.
        reason: String,
    },
    /// Form a communicator.
    Form(Roster),
    /// Get the weights.
    Restore(Restore),
    /// Draw answers.
    Rollout {
        /// Which unit.
        unit: UnitId,
        /// Weights.
        policy: PolicyVersion,
        /// Step.
        step: Step,
        /// Training or evaluation.
        purpose: Purpose,
        /// Which data.
        data: DataIndex,
        /// Which samples.
        samples: Vec<SampleIndex>,
        /// How.
        sampling: Sampling,
        /// With policy features.
        features: bool,
    },
    /// Compute and reduce a gradient.
    Update {
        /// Roster.
        generation: Generation,
        /// Step.
        step: Step,
        /// Try.
        attempt: Attempt,
        /// Weights.
        policy: PolicyVersion,
        /// This rank's share.
        share: Share,
    },
    /// Step the optimizer.
    Apply {
        /// Roster.
        generation: Generation,
        /// Step.
        step: Step,
        /// Try.
        attempt: Attempt,
        /// New version.
        policy: PolicyVersion,
        /// Stage's settings.
        optimizer: OptimizerSettings,
        /// Rate of this step.
        lr: f64,
        /// First step of a stage.
        reset_moments: bool,
    },
    /// Write a checkpoint's files.
    Checkpoint {
        /// Roster.
        generation: Generation,
        /// After which step.
        step: Step,
        /// Weights.
        policy: PolicyVersion,
        /// Where.
        dir: PathBuf,
    },
    /// Leave.
    Stop {
        /// Why.
        reason: String,
    },
}

/// One rank's share of an update.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    /// Scored groups.
    Grpo {
        /// Which data.
        data: DataIndex,
        /// The loss.
        objective: Objective,
        /// Rollout temperature.
        temperature: f64,
        /// Longest answer.
        max_new_tokens: usize,
        /// KL reference directory, when beta > 0.
        reference: Option<PathBuf>,
        /// Sample and its distinct answers.
        groups: Vec<(SampleIndex, Vec<TrainAnswer>)>,
    },
    /// Labelled examples.
    Sft {
        /// Which data.
        data: DataIndex,
        /// Which samples; one may occur twice in a batch.
        samples: Vec<SampleIndex>,
    },
}

/// What `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Phase name, lower case.
    pub phase: String,
    /// `explain()`.
    pub explain: String,
    /// Name of the stage.
    pub stage: String,
    /// Last committed step.
    pub step: Step,
    /// Steps of all training stages.
    pub total_steps: u64,
    /// Roster number.
    pub generation: Generation,
    /// Version of the weights.
    pub policy: PolicyVersion,
    /// Term.
    pub term: Term,
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// Rejected reports by reason.
    pub rejected: std::collections::BTreeMap<Rejection, u64>,
}

/// Ballots agree when all of this does.
#[must_use]
pub fn ballots_agree(a: &Ballot, b: &Ballot) -> bool {
    a.gradient == b.gradient && a.finite && b.finite
}
