//! `status`, `report`, `compare`: views of run directories.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{
    launch::Exit,
    preflight::Refused,
    report as page,
    run_dir::{RunDir, process_alive, render_status},
};

/// Prints where a run stands.
pub(super) fn status(path: &Path, json: bool) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    match run_dir.status()? {
        Some(status) if json => {
            println!("{}", serde_json::to_string_pretty(&status).context("encoding the status")?);
        }
        Some(status) => println!("{}", render_status(&status, process_alive(status.pid))),
        None => println!("the run in {} has not started yet", run_dir.path().display()),
    }
    Ok(Exit::Done)
}

/// Writes the report again.
pub(super) fn report(path: &Path) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    println!("{}", page::write(run_dir.path())?.display());
    Ok(Exit::Done)
}

/// Prints the table of several runs.
pub(super) fn compare(paths: &[PathBuf]) -> anyhow::Result<Exit> {
    print!("{}", crate::compare::table(paths).map_err(Refused::because)?);
    Ok(Exit::Done)
}
