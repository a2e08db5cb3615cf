//! Input that is not usable.

/// Nothing was made or started; the sentence says what to change. Its exit code is that of bad input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// Refused with this sentence.
    #[must_use]
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// Refused because of an error, with all its causes.
    #[must_use]
    pub fn because(error: impl Into<anyhow::Error>) -> Self {
        Self(format!("{:#}", error.into()))
    }
}
