//! Data sets: readers, the check, and the wall between questions and answers (INV-9).
//!
//! [`load`] reads the data set of a run file, [`load_checked`] also decodes every image of it, [`check`]
//! looks at whatever lies at a path. Each reports all problems at once, with file and line.

mod check;
mod field;
mod jsonl;
mod load;
mod picture;
mod problem;
mod reader;
mod records;
mod sample;
mod slake;

pub use check::{Report, SetReport, check};
pub use load::{load, load_checked};
pub use problem::{DataProblem, DataProblems};
pub use sample::*;
