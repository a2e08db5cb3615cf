//! `completions` and `man`, made of the command line itself.

use std::{fs, process::ExitCode};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "medevo-worker",
        &mut std::io::stdout(),
    );
    ExitCode::SUCCESS
}

/// Writes a man page of each subcommand.
///
/// # Errors
/// The directory cannot be made or written.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.dir;
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing man pages into {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
