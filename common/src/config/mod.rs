//! The run file: TOML in, a validated [`RunConfig`] out.

mod raw;

pub use raw::*;
