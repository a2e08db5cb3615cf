//! What can go wrong in the engine, sorted by what the caller does next.

use medevo_collective::CollectiveError;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A collective operation failed or timed out: drop the communicator and report it.
    #[error("{0}")]
    Collective(#[from] CollectiveError),
    /// Numbers overflowed where no ballot could say so; the weights are untouched.
    #[error(
        "{what} is not finite; the weights are unchanged (lower the learning rate, or look at the sample)"
    )]
    NotFinite {
        /// Which quantity.
        what: String,
    },
    /// The request does not fit what this engine holds (version, attempt): a stale directive, or a
    /// worker that needs a restore first.
    #[error("{what} refused: {why}")]
    Stale {
        /// What was asked.
        what: String,
        /// What is held instead.
        why: String,
    },
    /// The request can never succeed as it stands: the data or the settings have to change.
    #[error("{what} refused: {why}")]
    Refused {
        /// What was asked, with the sample or file by name.
        what: String,
        /// What is wrong with it, and what to change.
        why: String,
    },
    /// Anything else: a file that cannot be read, a disk that is full.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl EngineError {
    /// Whether another try, or another worker, may do better.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// A refusal for good.
    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into() }
    }

    /// A refusal because of what is held just now.
    pub(crate) fn stale(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Stale { what: what.into(), why: why.into() }
    }
}
