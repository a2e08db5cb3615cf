//! A simulated cluster around the coordinator's core. Nothing in it knows real time, threads or files: one seed
//! is one schedule, and the same seed is the same trace, byte for byte.
//!
//! Two ways to drive the same parts ([`checker`], [`weights`], [`scorer`], [`replay`], [`spec`]):
//!
//! - [`by_hand`]: one move at a time, for tests that say what happens next.
//! - [`world`]: an event queue with a network, a store, two coordinators and worker processes that fail as
//!   [`faults`] says; the tests in `tests/` run thousands of seeds of it.

pub mod by_hand;
pub mod checker;
pub mod random;
pub mod replay;
pub mod scale;
pub mod scorer;
pub mod spec;
pub mod weights;
mod worker;
pub mod world;

pub use by_hand::{Sim, Trouble};
