//! Mini-SLAKE: a generated data set in SLAKE's exact layout, for the demo, for tests and for benchmarks.
//!
//! Small schematic scans with open and closed questions. The source hospital is labelled and its
//! annotators word their answers as they like; the target hospital has another look and other questions.
//! Where the real data can be had, only a path changes.

mod anatomy;
mod canvas;
mod generate;
mod grammar;
mod random;
mod scan;
mod sets;

pub use generate::{MiniSlake, SetSummary, Summary, generate};
pub use grammar::corpus;
