//! Starting a run on this machine: a coordinator in this process, workers as children.

mod attend;
mod children;
mod dry_run;
mod exit;
mod local;
mod signals;
mod worker_binary;

pub use children::{Children, Ended, WorkerCommand};
pub use dry_run::describe;
pub use exit::Exit;
pub use local::{Run, Start, launch, resume, start};
pub use signals::Signals;
pub use worker_binary::find as find_worker_binary;
