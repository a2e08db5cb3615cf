//! The run file: TOML in, a validated [`RunConfig`] out.
//!
//! [`RunConfig::load`] reads a file, lays `--set` overrides over it and refuses what it does not know,
//! all problems at once; [`RunConfig::validate`] then checks what types cannot say and gives the only
//! thing that the rest of the system accepts, a [`ValidConfig`].

mod checkpoint;
mod document;
mod error;
mod k8s;
mod parse;
mod raw;
mod reference;
mod rules;
mod schema;
mod set;
mod slurm;
mod store;
mod validate;

pub use checkpoint::{BestIs, CheckpointSection};
pub use error::{ConfigErrors, ConfigProblem, Place};
pub use k8s::{K8sSection, is_object_name};
pub use raw::*;
pub use reference::reference_markdown;
pub use slurm::{CoordinatorNode, NodeLoss, SlurmSection};
pub use store::{StoreKind, StoreSection};
pub use validate::ValidConfig;
