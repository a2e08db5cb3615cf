//! The logs of a run, read as one: every line with its source, in the order of time.

mod line;
mod merge;
mod since;

pub use line::Line;
pub use merge::Logs;
pub use since::parse as parse_since;
