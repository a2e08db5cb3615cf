//! What must survive the coordinator, behind a small trait: a key-value map with prefix listing and
//! transactions guarded by the leader's term.

mod embedded;
mod key_value;
mod memory;
mod records;
mod recover;

pub use embedded::Embedded;
pub use key_value::{Guard, Put, Store, StoreError};
pub use memory::Memory;
pub use records::Journal;
pub use recover::{Mend, Recovery, is_checkpoint, matches, outcome, recover, recover_with};
