//! What a worker does with its weights: draws candidates ([`Engine::rollout`]), computes and reduces a gradient
//! ([`Engine::update`]), applies it once it is committed ([`Engine::apply`]), and restores and saves its state
//! ([`Engine::restore`], [`Engine::save`]).
//!
//! Invariants:
//! - INV-2: a gradient is applied only if it is that of the generation, step, attempt and version asked for.
//! - A prompt is processed once for all its candidates, in rollout ([`kv_cache::KvCache`]) and in the update
//!   ([`layout`]).
//! - Rollout and update mean the same by a log-probability ([`sampling`]).

pub mod adamw;
pub mod attention;
mod batching;
mod bounded;
pub mod branches;
mod cohort;
mod decode;
mod digest;
mod draw;
mod engine;
mod error;
mod exchange;
mod features;
mod fingerprint;
mod gradient;
mod grpo;
mod holding;
pub mod kv_cache;
pub mod layout;
mod micro_batch;
pub mod objective;
mod optimizer_file;
mod origin;
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
