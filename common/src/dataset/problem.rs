//! What is wrong with a data set: all of it at once, each with file and line.

use std::{fmt, path::PathBuf};

/// More than these are counted, not shown.
const SHOWN: usize = 50;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataProblem {
    /// In which file.
    pub file: PathBuf,
    /// In which line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong, and where it helps, what to do about it. Never the text of a question or an answer.
    pub what: String,
}

impl fmt::Display for DataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}

/// All that is wrong with a data set. Displays the first 50 and says how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataProblems {
    /// The data set's name in the run file, or the path that was checked.
    pub subject: String,
    /// The problems, by file and line.
    pub problems: Vec<DataProblem>,
}

impl fmt::Display for DataProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "data set {}: {count} {noun}", self.subject)?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        if count > SHOWN {
            write!(f, "\n  and {} more", count - SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for DataProblems {}
