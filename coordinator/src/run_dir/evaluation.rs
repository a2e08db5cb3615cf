//! `evaluations/*.json`: what an evaluation pass found, with every answer, so that two passes can be
//! compared question by question.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use medevo_text::{Interval, Protocol};
use serde::{Deserialize, Serialize};

use super::atomic::write_atomic;

/// How the answers were drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalKind {
    /// The most probable token at each place.
    Greedy,
    /// The most frequent of `n` answers drawn at temperature 1 (maj@N).
    Majority,
}

/// One evaluation pass over one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Name of the stage.
    pub stage: String,
    /// Name of the pass ("target greedy").
    pub pass: String,
    /// Name of the data set in the run file.
    pub data: String,
    /// After which step.
    pub step: u64,
    /// Version of the weights.
    pub policy: u64,
    /// How the answers were drawn.
    pub kind: EvalKind,
    /// Answers drawn a question: 1 for greedy, N for maj@N.
    pub draws: usize,
    /// Protocol of the figures ("strict").
    pub protocol: Protocol,
    /// Questions with a reference answer; all of them are in the denominator.
    pub n: usize,
    /// Share of correct answers.
    pub accuracy: Interval,
    /// Token recall (closed questions: 1 if correct).
    pub recall: Interval,
    /// Token F1.
    pub f1: Interval,
    /// Closed questions alone.
    pub closed: Part,
    /// Open questions alone.
    pub open: Part,
    /// By field of the data set (modality, location, ...), then by its value.
    #[serde(default)]
    pub by_tag: BTreeMap<String, BTreeMap<String, Part>>,
    /// Mean length of the answers, words.
    pub answer_words: f64,
    /// Every question's answer, in file order.
    pub rows: Vec<EvalRow>,
}

/// A part of the questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// How many questions.
    pub n: usize,
    /// Share of correct answers among them.
    pub accuracy: Interval,
    /// Their token recall.
    pub recall: Interval,
}

/// One question's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Id of the sample.
    pub sample: String,
    /// Whether the answer is correct.
    pub correct: bool,
    /// Its token recall, 0 to 1.
    pub recall: f64,
    /// The answer.
    pub answer: String,
}

impl EvaluationRecord {
    /// Writes the record into the folder `evaluations`. Passes of an evaluate stage get
    /// `<stage>--<pass>.json`; those that a training stage makes on its way also carry the step, since there
    /// the same pass comes again and again.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn write(&self, folder: &Path, during_training: bool) -> anyhow::Result<PathBuf> {
        let mut name = format!("{}--{}", plain(&self.stage), plain(&self.pass));
        if during_training {
            name.push_str(&format!("--step-{:06}", self.step));
        }
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_vec(self).context("an evaluation cannot be encoded")?;
        write_atomic(&path, &text)?;
        Ok(path)
    }

    /// All evaluations of a run, by step, then by name of the file.
    ///
    /// # Errors
    /// Names the file that cannot be read as an evaluation.
    pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                return Err(e).with_context(|| format!("{} cannot be read", folder.display()));
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
                name.ends_with(".json") && !name.starts_with('.')
            })
            .collect();
        paths.sort();
        let mut records = Vec::with_capacity(paths.len());
        for path in paths {
            let text =
                fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let record: Self = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no evaluation of this version", path.display()))?;
            records.push(record);
        }
        records.sort_by_key(|record| record.step);
        Ok(records)
    }

    /// The record as the event `evaluated`: its figures without the answers.
    #[must_use]
    pub fn event(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "evaluated",
            "stage": self.stage,
            "pass": self.pass,
            "data": self.data,
            "step": self.step,
            "policy": self.policy,
            "kind": self.kind,
            "draws": self.draws,
            "protocol": self.protocol,
            "n": self.n,
            "accuracy": self.accuracy,
            "recall": self.recall,
            "f1": self.f1,
            "closed": self.closed,
            "open": self.open,
            "answer_words": self.answer_words,
        })
    }
}

/// A name as part of a file name: letters, digits, `-`, `_`, `.` and `@` stay, all else becomes `-`.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '-' })
        .collect()
}
