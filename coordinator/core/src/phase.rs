//! The phase that a run is in, with all that the phase needs.

use std::{collections::BTreeMap, sync::Arc};

use medevo_types::{
    Attempt, Digest, PolicyVersion, Step,
    messages::{Ballot, FileEntry, Group, Holding, Member, RestoreSource, TrainAnswer},
};

use crate::{CheckpointRef, Millis, Outcome, SampleIndex, Share, plan::TrainStep, units::Units};

/// Where a run is.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// Before the first input.
    #[default]
    Starting,
    /// Forming, first half: waiting for workers.
    Gathering(Gathering),
    /// Forming, second half: a generation is opened and its communicator is being made.
    Linking(Linking),
    /// Weights are being put in place.
    Restoring(Restoring),
    /// Candidates are being drawn.
    Rollout(Draw),
    /// The driver computes rewards and advantages.
    Scoring(Scoring),
    /// Ranks reduce a gradient and vote.
    Updating(Updating),
    /// The commit is on record; ranks step their optimizers.
    Committing(Committing),
    /// Answers to measure with are being drawn.
    Evaluating(Measure),
    /// A checkpoint is being written.
    Checkpointing(Checkpointing),
    /// Over.
    Finished(Outcome),
}

impl Phase {
    /// The phase's name, lower case, as events and `status` show it.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Gathering(_) | Phase::Linking(_) => "forming",
            Phase::Restoring(_) => "restoring",
            Phase::Rollout(_) => "rollout",
            Phase::Scoring(_) => "scoring",
            Phase::Updating(_) => "updating",
            Phase::Committing(_) => "committing",
            Phase::Evaluating(_) => "evaluating",
            Phase::Checkpointing(_) => "checkpointing",
            Phase::Finished(outcome) => outcome.phase(),
        }
    }

    /// The units that are being worked on.
    pub fn units_mut(&mut self) -> Option<&mut Units> {
        match self {
            Phase::Rollout(draw) => Some(&mut draw.units),
            Phase::Evaluating(measure) => Some(&mut measure.units),
            _ => None,
        }
    }

    /// The training step that is being worked on, if one is.
    pub fn train_step(&self) -> Option<Step> {
        let work = match self {
            Phase::Gathering(g) => &g.work,
            Phase::Linking(l) => &l.work,
            Phase::Restoring(r) => &r.work,
            Phase::Rollout(draw) => return Some(draw.at.step),
            Phase::Scoring(scoring) => return Some(scoring.at.step),
            Phase::Updating(updating) => return Some(updating.learn.at.step),
            Phase::Committing(committing) => return Some(committing.at.step),
            _ => return None,
        };
        match work {
            Work::Draw(draw) => Some(draw.at.step),
            Work::Learn(learn) => Some(learn.at.step),
            _ => None,
        }
    }
}

/// Work that survives a change of roster: it goes on once a roster stands on the right weights.
#[derive(Debug)]
pub(crate) enum Work {
    /// Whatever the position says.
    Next,
    /// Candidates, some of them perhaps drawn already.
    Draw(Draw),
    /// An update.
    Learn(Box<Learn>),
    /// An evaluation pass, some answers perhaps drawn already.
    Measure(Measure),
    /// A checkpoint.
    Save(Save),
}

/// Waiting for workers.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// What goes on afterwards.
    pub work: Work,
    /// Why a new roster is needed.
    pub reason: String,
    /// No generation is opened earlier.
    pub not_before: Millis,
    /// Once min_workers are there: how long still to wait for more.
    pub grace: Option<Millis>,
    /// While they are not: when the run gives up.
    pub starve: Millis,
}

/// What a rank made of the order to form or to restore.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// Done.
    Ok(T),
    /// It could not; the others are still awaited, so that a dead peer is found before a new try.
    Err(String),
}

/// Making a communicator.
#[derive(Debug)]
pub(crate) struct Linking {
    /// What goes on afterwards.
    pub work: Work,
    /// By rank; every one of them is told all.
    pub members: Arc<[Member]>,
    /// What each rank said; it holds these weights.
    pub formed: BTreeMap<usize, Answer<Option<Holding>>>,
    /// For all of them.
    pub deadline: Millis,
}

/// Putting weights in place.
#[derive(Debug)]
pub(crate) struct Restoring {
    /// What goes on afterwards.
    pub work: Work,
    /// Where the weights come from.
    pub source: RestoreSource,
    /// What each rank said.
    pub restored: BTreeMap<usize, Answer<Digest>>,
    /// For all of them.
    pub deadline: Millis,
}

/// Drawing a training step's candidates.
#[derive(Debug)]
pub(crate) struct Draw {
    /// Which step.
    pub at: TrainStep,
    /// Which round of its rollout, from 1.
    pub round: u64,
    /// Groups of earlier rounds: scored, but too few of them train.
    pub earlier: Vec<(SampleIndex, Group)>,
    /// The units.
    pub units: Units,
}

/// Waiting for the scorer.
#[derive(Debug)]
pub(crate) struct Scoring {
    /// Which step.
    pub at: TrainStep,
    /// Which round of its rollout, from 1.
    pub round: u64,
    /// So many groups at the front are of earlier rounds.
    pub earlier: usize,
    /// What is being scored.
    pub groups: Vec<(SampleIndex, Group)>,
    /// Tries that failed.
    pub failures: u32,
    /// Of this try.
    pub deadline: Millis,
}

/// An update that is decided on but not yet committed.
#[derive(Debug)]
pub(crate) struct Learn {
    /// Which step.
    pub at: TrainStep,
    /// From what.
    pub batch: Batch,
    /// The current try.
    pub attempt: Attempt,
    /// Tries whose gradient was not finite on any rank.
    pub nonfinite: u32,
    /// The rollout's figures.
    pub figures: Vec<(String, f64)>,
    /// Questions of its rollout beyond the stage's `questions` that no commit counts yet.
    pub extra: u64,
}

/// What a step learns from.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Scored groups with their prompt lengths in tokens, and the version that drew them.
    Grpo(PolicyVersion, Vec<(SampleIndex, u32, Arc<[TrainAnswer]>)>),
    /// Labelled examples.
    Sft(Vec<SampleIndex>),
}

impl Batch {
    /// Groups or examples in it.
    pub fn len(&self) -> usize {
        match self {
            Batch::Grpo(_, groups) => groups.len(),
            Batch::Sft(samples) => samples.len(),
        }
    }
}

/// Waiting for ballots.
#[derive(Debug)]
pub(crate) struct Updating {
    /// The update.
    pub learn: Box<Learn>,
    /// Share of each rank.
    pub shares: Vec<Share>,
    /// Votes by rank.
    pub ballots: BTreeMap<usize, Ballot>,
    /// For all of them.
    pub deadline: Millis,
}

/// Waiting for the optimizer steps.
#[derive(Debug)]
pub(crate) struct Committing {
    /// Which step.
    pub at: TrainStep,
    /// The try that won.
    pub attempt: Attempt,
    /// Learning rate.
    pub lr: f64,
    /// First update of its stage.
    pub reset_moments: bool,
    /// What it trained on; the next iteration does too.
    pub batch: Batch,
    /// The rollout's figures, for the next iteration.
    pub rollout: Vec<(String, f64)>,
    /// For the event.
    pub figures: BTreeMap<String, f64>,
    /// What each rank holds now, or why it could not apply.
    pub applied: BTreeMap<usize, Answer<Digest>>,
    /// For all of them.
    pub deadline: Millis,
}

/// An evaluation pass.
#[derive(Debug)]
pub(crate) struct Measure {
    /// Index of the stage that it belongs to.
    pub stage: usize,
    /// Index of the pass in it.
    pub pass: usize,
    /// The training step that it comes after, when it lies within an rl stage.
    pub within: Option<TrainStep>,
    /// The units.
    pub units: Units,
}

/// Why a checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveReason {
    /// `checkpoint_every` steps are over.
    Periodic,
    /// A training stage is over.
    StageEnd,
    /// The stage that begins needs these weights as its KL reference.
    Reference,
    /// The run is being drained.
    Drain,
}

/// A checkpoint to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Save {
    /// Why.
    pub why: SaveReason,
    /// Tries that failed.
    pub failures: u32,
}

/// Writing a checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    /// The task.
    pub save: Save,
    /// What the pointer will say.
    pub checkpoint: CheckpointRef,
    /// Whose turn it is.
    pub turn: SaveTurn,
    /// What the ranks have written so far.
    pub files: BTreeMap<usize, Vec<FileEntry>>,
    /// Of this turn.
    pub deadline: Millis,
}

/// Halves of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveTurn {
    /// Rank 0 writes files; where the optimizer is sharded, every rank does.
    Files,
    /// The driver checks them and writes the manifest.
    Manifest,
}
