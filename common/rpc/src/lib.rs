//! The control plane: one tarpc service, its codec, a client with deadlines, a server with bounds, and the
//! door between them.

mod certificate;
pub mod client;
pub mod codec;
mod connect;
mod connection;
mod door;
mod greeting;
mod place;
mod refusal;
mod security;
pub mod server;
pub mod service;

pub use certificate::{Certificate, CertificateError, FEW_DAYS};
pub use client::{CallError, Client};
pub use codec::MAX_FRAME_BYTES;
pub use connect::Credentials;
pub use door::{Door, Doorkeeper};
pub use greeting::MAX_TOKEN_BYTES;
pub use medevo_types::Backoff;
pub use place::Locate;
pub use refusal::Refusal;
pub use security::{
    CA_FILE, COORDINATOR_FILES, COORDINATOR_NAME, ClientSecurity, Security, ServerSecurity,
    WORKER_FILES,
};
pub use server::{Limits, serve, serve_within};
