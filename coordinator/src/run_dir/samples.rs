//! `samples.jsonl`: the scored groups with their texts, for the report. Texts live here and in the
//! evaluations only, never in a log.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::json_lines::{JsonLines, read_lines};

/// One scored group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Step that it was drawn for.
    pub step: u64,
    /// Name of the stage.
    pub stage: String,
    /// Id of the sample in its data set.
    pub sample: String,
    /// The (first) image; none for a question about text alone.
    pub image: Option<PathBuf>,
    /// The question.
    pub question: String,
    /// Distinct answers, the most frequent first.
    pub candidates: Vec<CandidateRecord>,
    /// The answer that was taken for true; none in a group that has none.
    pub pseudo_label: Option<String>,
    /// Share of the candidates in the pseudo label's cluster, 0 to 1.
    pub share: f64,
    /// Lead of that cluster's share over the second's.
    pub margin: f64,
    /// What became of the group.
    pub outcome: SampleOutcome,
}

/// A distinct answer of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The answer as it was drawn.
    pub text: String,
    /// How many candidates gave it.
    pub count: u32,
    /// Reward of each, 0 to 1.
    pub reward: f64,
    /// Advantage of each; 0 in a group that does not train.
    pub advantage: f64,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleOutcome {
    /// It trained.
    Train,
    /// No consensus.
    Abstained,
    /// All rewards equal.
    NoVariance,
}

/// Writer of `samples.jsonl`.
#[derive(Debug)]
pub struct SampleLog {
    lines: JsonLines,
}

impl SampleLog {
    /// Opens the file for appending; a torn last line is cut off.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { lines: JsonLines::open(path)? })
    }

    /// Appends the groups of a step.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn append(&mut self, records: &[SampleRecord]) -> anyhow::Result<()> {
        records.iter().try_for_each(|record| self.lines.append(record, false))
    }
}

impl SampleRecord {
    /// All groups of a run, oldest first. A step that was redone after a rollback is there twice: the
    /// later one stands. Lines of another layout are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_all(path: &Path) -> anyhow::Result<Vec<Self>> {
        let lines = read_lines(path)?;
        Ok(lines.filter_map(|line| serde_json::from_value(line.ok()?).ok()).collect())
    }
}
