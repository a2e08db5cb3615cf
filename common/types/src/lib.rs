//! Ids, settings and messages that every part of medevo shares. Plain data: no runtime, no I/O.

mod backoff;
pub mod ids;
pub mod messages;
mod names;
pub mod probe;
pub mod settings;

pub use backoff::Backoff;
pub use ids::*;
