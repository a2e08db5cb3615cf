//! The control plane: one tarpc service, its codec, a client with deadlines.

pub mod service;
