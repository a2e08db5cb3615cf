//! Starting a run: on this machine, with the coordinator in this process and workers as children, or on a cluster.

mod alive;
mod attend;
mod carry;
mod children;
mod dry_run;
mod entrance;
mod exit;
mod gpus;
mod k8s;
mod lead;
mod local;
mod on;
mod requests;
mod roll;
mod run;
mod serve;
mod signals;
mod slurm;
mod worker_binary;

pub use children::{Children, Ended, WorkerCommand};
pub use dry_run::describe;
pub use exit::Exit;
pub use k8s::remote;
pub use local::{Start, resume, start};
pub use on::{On, launch};
pub use run::Run;
pub use serve::{Serve, serve};
pub use signals::{Ask, Signals};
pub(crate) use slurm::{Allocation, cancel, queued};
pub use worker_binary::find as find_worker_binary;
