//! What must survive the coordinator: the core's records in the run's store, guarded by the leader's term.

mod open;
mod records;
mod recover;

pub use open::{open, require_new, settings};
pub use records::Journal;
pub(crate) use records::{next_term, term_guard};
pub use recover::{Mend, Recovery, is_checkpoint, matches, outcome, recover, recover_with};
