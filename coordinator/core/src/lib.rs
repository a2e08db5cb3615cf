//! The pure state machine of a run: `step(now, input) -> output`.

pub mod api;

pub use api::*;
