//! `status`, `report`, `compare`: views of run directories.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::attended;
use crate::{
    launch::{Exit, queued},
    preflight::Refused,
    report as page,
    run_dir::{RunDir, Status, render_status},
    say::say,
};

/// Prints where a run stands.
pub(super) fn status(path: &Path, json: bool) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    let status = run_dir.status()?;
    if let (Some(status), true) = (&status, json) {
        say(serde_json::to_string_pretty(status).context("encoding the status")?);
        return Ok(Exit::Done);
    }
    let led = status.as_ref().is_some_and(Status::alive);
    let job = if led { None } else { attended(async { Ok(queued(&run_dir).await) })? };
    match (&status, &job) {
        (Some(status), _) => say(render_status(status, led).trim_end()),
        (None, Some(_)) => say("no coordinator has led this run yet"),
        (None, None) => say(format!(
            "no coordinator has led the run in {} yet; `medevo-coord resume` starts it on this machine",
            run_dir.path().display()
        )),
    }
    if let Some(job) = job {
        say(format!("{job}; the run goes on in it"));
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
