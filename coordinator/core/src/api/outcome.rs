//! How a run ended.

use serde::{Deserialize, Serialize};

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
    /// Ended at once on request, without a checkpoint; `resume` goes on from the last one.
    Stopped {
        /// Why.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// How a run ended, without the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// As [`Outcome::Done`].
    Done,
    /// As [`Outcome::Drained`].
    Drained,
    /// As [`Outcome::Stopped`].
    Stopped,
    /// As [`Outcome::Failed`].
    Failed,
}

impl Outcome {
    /// Without the reason.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Done => Ending::Done,
            Self::Drained { .. } => Ending::Drained,
            Self::Stopped { .. } => Ending::Stopped,
            Self::Failed { .. } => Ending::Failed,
        }
    }

    /// In a sentence, as `explain()` says it.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::Done => "finished: every stage is done".to_owned(),
            Self::Drained { reason } => format!("drained: {reason}"),
            Self::Stopped { reason } => {
                format!("stopped at once: {reason}; resume goes on from the last checkpoint")
            }
            Self::Failed { reason } => format!("failed: {reason}"),
        }
    }

    /// The name of the phase that the run is in then.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Done | Self::Drained { .. } | Self::Stopped { .. } => "finished",
            Self::Failed { .. } => "failed",
        }
    }
}
