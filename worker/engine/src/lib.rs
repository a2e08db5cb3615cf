//! What a worker does with its weights: draws candidates ([`Engine::rollout`]), computes and reduces a gradient
//! ([`Engine::update`]), applies it once it is committed ([`Engine::apply`]), and restores and saves its state
//! ([`Engine::restore`], [`Engine::save`]).
//!
//! Invariants:
//! - INV-2: a gradient is applied only if it is that of the generation, step, attempt and version asked for.
//! - A prompt is processed once for all its candidates, in rollout ([`attention::Decode`]) and in the update
//!   ([`layout`]).
//! - Rollout and update mean the same by a log-probability ([`sampling`]).

pub mod adamw;
pub mod attention;
mod bounded;
mod decode;
mod digest;
mod engine;
mod error;
mod exchange;
mod features;
mod fingerprint;
mod gradient;
mod grpo;
mod holding;
pub mod layout;
pub mod objective;
mod optimizer_file;
mod peer;
mod prompts;
mod restore;
mod rollout;
pub mod sampling;
mod score;
mod sft;
mod shard;
mod state;
mod update;

pub use engine::Engine;
pub use error::EngineError;
pub use optimizer_file::OPTIMIZER_FILE;
pub use rollout::Scored;
