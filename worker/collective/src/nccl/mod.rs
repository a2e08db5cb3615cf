//! GPU collectives: NCCL through cudarc's raw bindings.
//!
//! [`api`] is the handful of calls that are needed, [`ffi`] makes them, and [`communicator`] is the logic around
//! them: deadlines, asynchronous errors, and an end that does not hang ([`undertaker`]).

mod api;
mod communicator;
#[cfg(test)]
mod fake;
mod ffi;
mod load;
pub mod probe;
#[cfg(test)]
mod tests;
mod undertaker;

pub use communicator::Communicator;
pub use load::load_libtorch_cuda;

/// An NCCL communicator of CUDA tensors.
pub type Nccl = Communicator<ffi::Cuda>;
