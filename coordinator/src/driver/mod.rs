//! The driver: one task that owns the core, and what it needs to carry the core's outputs out.
//!
//! For every output the order is fixed: evaluation files, records (one transaction, guarded by the term),
//! events, effects, reply. A failure before an act means that the act does not happen: the driver halts,
//! tells the workers to leave, and `resume` goes on. Before all of it, the lease: a coordinator that may have lost the lead
//! does nothing, and tells nobody to leave (INV-8).

mod acting;
mod admission;
mod asked;
mod authority;
mod chronicle;
mod clock;
mod copier;
mod effects;
mod evaluator;
mod fault;
mod handle;
mod materialise;
mod pace;
mod publish;
mod retention;
mod rollouts;
mod samples;
mod scores;
mod scoring;
mod spec;
mod task;

pub use admission::Admission;
pub use chronicle::Chronicle;
pub use clock::Clock;
pub use copier::{CopyTo, Copying};
pub use evaluator::Evaluator;
pub use handle::{Handle, LONG_POLL};
pub use materialise::{Materialiser, NoSample, Supervised};
pub use pace::Pace;
pub use publish::Identity;
pub(crate) use publish::tidy;
pub use retention::{Retention, expired};
pub use scores::Scores;
pub use scoring::STATE_FILE;
pub use spec::{Plan, PlanError, data_in_use, millis, resolve};
pub use task::{Driver, Parts};

pub use crate::run_dir::Status;
