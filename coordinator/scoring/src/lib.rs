//! FPL pseudo labels, HSR rewards and advantages, as pure functions on slices.
//!
//! A [`Scorer`] takes the groups of one training step and says, for each, which candidate is the pseudo
//! label (`label.rs`), what reward every candidate earns against it (`reward.rs`), and with which
//! advantage it trains ([`advantage`]). It has no clock, no randomness and no I/O; what it remembers
//! between steps is a [`ScorerState`] that a checkpoint can hold. No type here can carry a reference
//! answer (INV-9).

pub mod advantage;
mod answers;
mod api;
mod cluster;
mod embed;
mod figures;
pub mod guard;
mod label;
mod lexical;
mod reward;
mod scorer;
mod settings;
mod train;

pub use api::{GroupOutcome, ScoreError, ScoredGroup, ScoredStep, ScorerSettings, ScorerState};
pub use scorer::{Judgements, Scorer};
