//! Names of reports for events, logs and errors; what a report holds stays out of them.

use crate::messages::Report;

impl Report {
    /// What kind of report it is, as events name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Formed { .. } => "formed",
            Self::Restored { .. } => "restored",
            Self::RolloutDone { .. } => "rollout_done",
            Self::Ballot(_) => "ballot",
            Self::Applied { .. } => "applied",
            Self::CheckpointWritten { .. } => "checkpoint_written",
            Self::CollectiveFailed { .. } => "collective_failed",
            Self::Failed { .. } => "failed",
            Self::Leaving => "leaving",
        }
    }
}
