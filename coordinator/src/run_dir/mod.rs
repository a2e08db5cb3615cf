//! The run directory: all that a run leaves behind, and the only thing that `status`, `report` and
//! `compare` read. Readers take no lock: files are either replaced as a whole or only grow.

mod atomic;
mod directory;
mod evaluation;
mod events;
mod json_lines;
mod process;
mod request;
mod samples;
mod status;
mod status_text;
mod time;

pub use atomic::write_atomic;
pub use directory::{ROLLOUTS, RunDir};
pub use evaluation::{EvalKind, EvalRow, EvaluationRecord, Part};
pub use events::EventLog;
pub use json_lines::{JsonLines, read_lines};
pub use process::{born, host};
pub use request::{Request, Wish};
pub use samples::{CandidateRecord, SampleLog, SampleOutcome, SampleRecord};
pub use status::Status;
pub use status_text::{human_duration, render_status};
pub use time::{now_ms, parse_rfc3339_ms, rfc3339_ms};
