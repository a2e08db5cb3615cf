//! Everything that only a GPU can show. On a machine without one each test says so and passes; `make gpu` runs them
//! one after the other, as they should be: they share the devices.
#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

#[path = "../../worker/collective/tests/claims/mod.rs"]
mod claims;
#[path = "../../worker/engine/tests/common/mod.rs"]
mod common;
mod conformance;
mod engine;
mod lifetime;
mod ordering;
