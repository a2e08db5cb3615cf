//! Whether a run fits its workers' devices, said before anything is started: `plan`, and the refusal of `launch`.

mod device;
mod prompts;
mod table;
mod verdict;
mod workload;

pub use device::{Device, gibibytes, parse};
pub use verdict::Verdict;
pub use workload::{StepTokens, Workload};
