//! Doing harm to a run on purpose, and what came of it.

pub mod kill;
pub mod link;
pub mod matrix;
pub mod network;
pub mod schedule;
