//! The coordinator: what a run leaves on disk, and how it is shown to people.

pub mod budget;
pub mod certificates;
pub mod cli;
pub mod compare;
pub mod copies;
pub mod doctor;
pub mod driver;
pub mod launch;
pub mod leadership;
mod logging;
pub mod logs;
pub mod metrics;
pub mod preflight;
pub mod progress;
pub mod report;
pub mod rpc;
pub mod run_dir;
mod say;
pub mod store;
