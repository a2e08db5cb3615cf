//! What comes out: records, effects, a reply.

use medevo_types::{
    Digest, Generation, PolicyVersion, Step, Term,
    messages::{Ballot, FileEntry, Group, JoinRefused, Rejection, WorkerView},
};
use serde::{Deserialize, Serialize};

use super::*;

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
        /// Digest of what the ranks held.
        holding: Digest,
        /// So many groups at the front were scored in earlier rounds of this rollout. Their labels and rewards
        /// stand (INV-4); their advantages may depend on the groups that have come.
        earlier: usize,
        /// The groups with the sample that each belongs to.
        groups: Vec<(SampleIndex, Group)>,
    },
    /// Check the files, write and sync the manifest; answer with [`Input::ManifestWritten`] or
    /// [`Input::CheckpointFailed`].
    WriteManifest {
        /// What the pointer will say.
        checkpoint: CheckpointRef,
        /// What the ranks wrote.
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

/// What `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Phase name, lower case.
    pub phase: String,
    /// `explain()`.
    pub explain: String,
    /// How the run has ended; none while it has not.
    #[serde(default)]
    pub ending: Option<Ending>,
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
