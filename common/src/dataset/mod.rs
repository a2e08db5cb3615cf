//! Data sets: readers, the check, and the wall between questions and answers (INV-9).

mod sample;

pub use sample::*;
