//! One worker process: it joins a run, keeps its lease, does what the coordinator directs, and reports.
//!
//! The [`agent`] asks for directives and sends reports; the [`lease`] thread keeps the worker in the
//! roster however busy the engine is; one engine thread owns every tensor. [`port`] is the seam between
//! that thread and the engine.

pub mod agent;
pub mod cli;
pub mod device;
mod directive;
pub mod documents;
mod engine_thread;
mod executor;
pub mod fault;
mod fresh_dir;
pub mod generate;
pub mod init;
pub mod join;
pub mod lease;
mod leaving;
pub mod logprobs;
pub mod merge;
pub mod port;
pub mod probe;
mod rendezvous;
pub mod slurm;
pub mod token;
pub mod whereabouts;
