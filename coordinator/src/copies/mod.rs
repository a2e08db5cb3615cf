//! Copies of a run's checkpoints in an object store (S3 and what speaks its language, or a folder).
//!
//! A copy holds the checkpoint's files under the checkpoint's own name: `<copy_to>/<run>/step-000040/...`, its
//! `manifest.json` last, so that what has no manifest is no copy (INV-5). `latest.json` beside them names the newest;
//! it is moved by a conditional put, and never by a coordinator of an earlier term (INV-8).

mod destination;
mod fetch;
mod latest;
mod mend;
mod upload;

pub use destination::Destination;
pub use fetch::{Fetched, fetch_url};
pub use latest::{LATEST_FILE, Latest};
pub use mend::mend;
