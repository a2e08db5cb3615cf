//! `completions` and `docs man`: made of the command line itself, so that they cannot say otherwise.

use std::{fs, path::Path};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::{
    launch::Exit,
    preflight::Refused,
    say::{complain, say},
};

/// Prints a shell's completions.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "medevo-coord", &mut text);
    say(String::from_utf8_lossy(&text).trim_end());
    Ok(Exit::Done)
}

/// Writes a man page of each subcommand.
pub(super) fn man(dir: &Path) -> anyhow::Result<Exit> {
    fs::create_dir_all(dir)
        .with_context(|| format!("{} cannot be made", dir.display()))
        .map_err(Refused::because)?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing man pages into {}", dir.display()))?;
    complain(format!("man pages are in {}: man -l {0}/medevo-coord.1", dir.display()));
    Ok(Exit::Done)
}
