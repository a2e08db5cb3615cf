//! The control plane's server: `medevo_rpc`'s service on the driver's handle.

mod rendezvous;
mod service;
mod token;

pub use rendezvous::Rendezvous;
pub use service::Service;
pub use token::Token;
