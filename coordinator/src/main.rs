//! The coordinator process and the command line of a run.

use std::process::ExitCode;

fn main() -> ExitCode {
    medevo_coord::cli::main().into()
}
