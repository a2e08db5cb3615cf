//! Who leads a run: one coordinator at a time, by a lease in the store; the others stand by.

mod campaign;
mod lead;

pub use campaign::{campaign, leader};
pub use lead::{Lapse, Lead};
