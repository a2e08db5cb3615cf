//! What both readers share: rows with their lines, unique ids, and the problems met on the way.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::{Path, PathBuf},
};

use medevo_types::SampleId;

use super::{DataProblem, Question, Reference};

/// A question with what belongs to it, and the line where it stands.
pub(super) struct Row {
    pub line: usize,
    pub question: Question,
    pub reference: Option<Reference>,
    /// As the file gives it, in lower case.
    pub language: Option<String>,
}

/// Which rows to keep.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keep<'a> {
    /// Only this language; empty: all.
    pub language: &'a str,
    /// Only the first so many; 0: all.
    pub limit: usize,
}

/// What was read from one file.
pub(super) struct Rows {
    pub file: PathBuf,
    pub rows: Vec<Row>,
    pub problems: Vec<DataProblem>,
    lines: HashMap<SampleId, usize>,
}

impl Rows {
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), rows: vec![], problems: vec![], lines: HashMap::new() }
    }

    /// Notes a problem; line 0 means the file as a whole.
    pub fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(DataProblem { file: self.file.clone(), line, what: what.into() });
    }

    /// Adds a row, and a problem if its id has been met before.
    pub fn push(&mut self, row: Row) {
        match self.lines.entry(row.question.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(row.line);
            }
            Entry::Occupied(first) => {
                let what = format!("id {} was given in line {} already", first.key(), first.get());
                self.problem(row.line, what);
            }
        }
        self.rows.push(row);
    }

    /// Whether the limit is reached.
    pub fn full(&self, keep: &Keep<'_>) -> bool {
        keep.limit > 0 && self.rows.len() >= keep.limit
    }

    /// The file's text, without a byte-order mark. Noted as a problem where it cannot be had.
    pub fn text(&mut self) -> Option<String> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problem(0, format!("cannot be read: {error}"));
                return None;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count();
                self.problem(line, "is not UTF-8 text: save the file as UTF-8");
                None
            }
        }
    }
}
