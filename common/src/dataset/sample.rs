//! A question, and apart from it, its reference answer.

use std::path::PathBuf;

use medevo_types::SampleId;
use serde::{Deserialize, Serialize};

/// A question without its answer: all that an adaptation stage can name (INV-9).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Unique in its data set.
    pub id: SampleId,
    /// Absolute paths, in prompt order.
    pub images: Vec<PathBuf>,
    /// The question, as written.
    pub text: String,
    /// Kind of answer expected.
    pub closed: bool,
    /// Other fields by name (modality, location, content_type, ...), for breakdowns.
    pub tags: Vec<(String, String)>,
}

/// A reference answer. Deliberately neither `Serialize` nor part of any message: only the evaluator and
/// a supervised stage ask for it.
#[derive(Clone, PartialEq)]
pub struct Reference(String);

impl Reference {
    /// Wraps the answer of a data set.
    #[must_use]
    pub fn new(answer: String) -> Self {
        Self(answer)
    }

    /// The answer. Called by the evaluator and by supervised stages only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reference(hidden)")
    }
}

/// A data set in memory: questions in file order, references apart.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its name in the run file.
    pub name: String,
    /// The questions.
    pub questions: Vec<Question>,
    /// Reference i belongs to question i; none where the file has none.
    pub references: Vec<Option<Reference>>,
}
