//! The pure state machine of a run: `step(now, input) -> output`.
//!
//! Invariants that hold after every step (ARCHITECTURE.md; `tests/invariants.rs` checks them on random
//! schedules):
//!
//! - INV-1 At most one committed update per step.
//! - INV-2 No optimizer step is ordered without a unanimous ballot for (generation, step, attempt).
//! - INV-3 A generation is never used twice.
//! - INV-4 A candidate is scored at most once, and only for the policy version that produced it.
//! - INV-5 The pointer only ever moves to a checkpoint whose manifest the driver has written.
//! - INV-6 Every phase that is not final has a deadline and an explanation.
//!
//! The files are named after the phases; [`api`] is the contract with the driver.

pub mod api;
mod boundary;
mod checkpointing;
mod committing;
mod core;
mod earlier;
mod evaluating;
mod explain;
mod forming;
mod laps;
mod membership;
mod order;
mod orders;
mod phase;
mod plan;
mod reports;
mod restoring;
mod rollout;
mod roster;
mod scoring;
mod split;
mod units;
mod updating;
mod weights;

pub use api::*;
pub use core::Core;
pub use order::{samples_from, step_samples};
pub use plan::rollout_steps;
