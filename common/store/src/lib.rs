//! What must outlive a process, behind one contract: a small, ordered key-value map with guarded
//! transactions, leases and watches. One file in the run directory keeps it for one machine, etcd for a
//! cluster, memory for tests.

mod clock;
mod contract;
mod embedded;
mod error;
mod etcd;
mod handout;
mod keeper;
mod live;
mod local;
mod memory;
mod roll;
mod settings;

pub use contract::{Change, Guard, LeaseId, Snapshot, Store, Watch, Write};
pub use embedded::Embedded;
pub use error::StoreError;
pub use etcd::Etcd;
pub use handout::{Handout, LEADER, LEADER_FILE, STORE_FILE, WORKERS};
pub use keeper::Keeper;
pub use memory::Memory;
pub use roll::{Changes, Roll};
pub use settings::Settings;
