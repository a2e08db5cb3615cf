//! `status`, `report`, `compare`: views of run directories.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{
    launch::Exit,
    preflight::Refused,
    report as page,
    run_dir::{RunDir, render_status},
    say::say,
};

/// Prints where a run stands.
pub(super) fn status(path: &Path, json: bool) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    match run_dir.status()? {
        Some(status) if json => {
            say(serde_json::to_string_pretty(&status).context("encoding the status")?);
        }
        Some(status) => say(render_status(&status, status.alive()).trim_end()),
        None => say(format!(
            "there is no status of the run in {} (yet); see its events in events.jsonl, or start it with \
             `medevo-coord resume`",
            run_dir.path().display()
        )),
    }
    Ok(Exit::Done)
}

/// Writes the report again.
pub(super) fn report(path: &Path) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    say(page::write(run_dir.path())?.display());
    Ok(Exit::Done)
}

/// Prints the table of several runs.
pub(super) fn compare(paths: &[PathBuf]) -> anyhow::Result<Exit> {
    say(crate::compare::table(paths).map_err(Refused::because)?.trim_end());
    Ok(Exit::Done)
}
