//! The control plane: one tarpc service, its codec, a client with deadlines, a server with bounds.

pub mod client;
mod codec;
pub mod server;
pub mod service;

pub use client::{CallError, Client};
pub use codec::MAX_FRAME_BYTES;
pub use medevo_types::Backoff;
pub use server::{Limits, serve, serve_within};
