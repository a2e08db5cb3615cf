//! Collectives between the ranks of a generation: the trait, Gloo inside libtorch for CPUs, NCCL for GPUs, a rank
//! that is alone, and an in-process fake for tests.
//!
//! One communicator belongs to one worker in one generation and is never reused: after any error it is
//! dropped and the next generation forms a new one.

mod contract;
mod gloo;
mod in_process;
mod memory_store;
mod nccl;
mod rendezvous;
mod solo;

pub use contract::{Collective, CollectiveError};
pub use gloo::Gloo;
pub use in_process::InProcess;
pub use memory_store::MemoryStore;
pub use nccl::{Nccl, load_libtorch_cuda, probe};
pub use rendezvous::Rendezvous;
pub use solo::Solo;
