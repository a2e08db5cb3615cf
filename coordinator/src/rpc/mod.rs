//! The control plane's server: `medevo_rpc`'s service on the driver's handle.

mod keeper;
mod refusals;
mod rendezvous;
mod service;
mod token;

pub use keeper::Keeper;
pub use refusals::Refusals;
pub use rendezvous::Rendezvous;
pub use service::Service;
pub use token::Token;
