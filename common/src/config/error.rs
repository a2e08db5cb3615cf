//! What is wrong with a run file, with the place of each problem.

use std::{fmt, path::PathBuf};

/// Where a value of the run comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The run file as a whole.
    File,
    /// A line of the run file, from 1.
    Line(usize),
    /// An override on the command line, as it was written.
    Set(String),
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it is.
    pub place: Place,
    /// What is wrong, with which key, and the way out.
    pub message: String,
}

/// Everything that is wrong with a run file; displayed one problem a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The run file, as the user named it.
    pub path: PathBuf,
    /// The problems, in the order of their places; never empty.
    pub problems: Vec<ConfigProblem>,
}

impl ConfigErrors {
    pub(super) fn new(path: PathBuf, mut problems: Vec<ConfigProblem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self { path, problems }
    }

    pub(super) fn one(path: PathBuf, place: Place, message: String) -> Self {
        Self::new(path, vec![ConfigProblem { place, message }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let message = &problem.message;
            match &problem.place {
                Place::File => write!(f, "{path}: {message}")?,
                Place::Line(line) => write!(f, "{path}:{line}: {message}")?,
                Place::Set(text) => write!(f, "--set {text}: {message}")?,
            }
        }
        Ok(())
    }
}
