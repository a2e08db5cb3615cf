//! What goes into the machine and what comes out of it.
//!
//! The driver feeds [`Input`]s with the time they happened at, persists [`Output::records`] in one
//! transaction guarded by its term, appends [`Output::events`] to the run's event stream, and only then
//! carries out [`Output::effects`] and hands [`Output::reply`] back (persist, then act).

mod event;
mod input;
mod ledger;
mod order;
mod outcome;
mod output;
mod recovered;
mod spec;

pub use event::*;
pub use input::*;
pub use ledger::*;
pub use order::*;
pub use outcome::*;
pub use output::*;
pub use recovered::*;
pub use spec::*;
