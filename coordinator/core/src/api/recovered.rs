//! What survives the coordinator, and what the next one finds.

use std::{collections::BTreeSet, path::PathBuf};

use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, Term, WorkerId, messages::Group,
};
use serde::{Deserialize, Serialize};

use super::*;

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
    /// Where the last committed step left the run, when that is beyond the checkpoint: the run goes on from there
    /// if a worker still holds those weights, and goes back, on record, if none does.
    pub last: Option<Standing>,
    /// The same for the step before it, when that is beyond the checkpoint, too.
    pub before: Option<Standing>,
    /// Who was in the last roster: worth waiting for, they hold weights.
    pub roster: BTreeSet<WorkerId>,
    /// Candidates that were scored beyond the checkpoint: used again where the same weights would draw them.
    pub rollouts: Vec<Rollout>,
}

/// Where a committed step left the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The step.
    pub step: Step,
    /// Version that holds after it.
    pub policy: PolicyVersion,
    /// Who was in the roster that made it. Only they can hold these weights: another worker may hold the same version
    /// of a timeline that was rolled back.
    pub roster: Vec<WorkerId>,
    /// The rest.
    pub left: Left,
}

/// What a commit says about going on from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// Position after it, within the step's own stage even when that is over.
    pub position: Position,
    /// Digest of what every rank held when the step began.
    pub before: Option<Digest>,
    /// KL reference of its stage.
    pub reference: Option<PathBuf>,
    /// As [`CheckpointRef::untrained`].
    pub untrained: bool,
}

/// The candidates of one rollout, as they were scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Index of the stage.
    pub stage: usize,
    /// The step that they were drawn for.
    pub step: Step,
    /// Version that drew them.
    pub policy: PolicyVersion,
    /// Digest of what the ranks held then: the same version made anew may differ in its last bits.
    pub holding: Digest,
    /// How many groups there were after each round.
    pub rounds: Vec<usize>,
    /// The groups, in the order in which they were asked for.
    pub groups: Vec<(SampleIndex, Group)>,
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
        /// Where it leaves the run. Records of earlier versions do not say.
        #[serde(default)]
        left: Option<Left>,
    },
    /// Who is in the generation that is opened.
    Roster(Vec<WorkerId>),
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
