//! `status --watch`: where a run stands, until it is over.

use std::{
    io::{IsTerminal, Write, stdout},
    path::Path,
    thread::sleep,
    time::Duration,
};

use anyhow::Context;

use crate::{
    launch::Exit,
    preflight::Refused,
    progress,
    run_dir::{RunDir, Status, render_status, rfc3339_ms},
};

/// Shows the status every so many seconds until the run is over; the exit code is the run's.
pub(super) fn watch(path: &Path, json: bool, seconds: f64) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(path).map_err(Refused::because)?;
    let terminal = stdout().is_terminal() && !json;
    let mut shown = String::new();
    loop {
        let status = run_dir.status()?;
        // Asked after the status was read: what a coordinator wrote before it went is then the last word.
        let alive = status.as_ref().is_some_and(Status::alive);
        let text = match &status {
            Some(status) if json => serde_json::to_string(status).context("encoding the status")?,
            Some(status) if terminal => render_status(status, alive),
            Some(status) => progress::line(status),
            None => "no coordinator has led this run yet".to_owned(),
        };
        if text != shown && show(&text, status.as_ref(), terminal, json).is_err() {
            // Nobody looks any more.
            return Ok(Exit::Done);
        }
        shown = text;
        if let Some(status) = &status
            && let Some(exit) = over(status, alive, &run_dir)?
        {
            return Ok(exit);
        }
        sleep(Duration::from_secs_f64(seconds));
    }
}

fn show(text: &str, status: Option<&Status>, terminal: bool, json: bool) -> std::io::Result<()> {
    let mut out = stdout();
    match status {
        // To the upper left corner, and away with what was below.
        _ if terminal => writeln!(out, "\x1b[H\x1b[J{}", text.trim_end())?,
        Some(status) if !json => writeln!(out, "{}  {text}", rfc3339_ms(status.updated_at))?,
        _ => writeln!(out, "{text}")?,
    }
    out.flush()
}

/// The exit code of a run that is over; a coordinator that is gone without a word has failed.
fn over(status: &Status, alive: bool, run_dir: &RunDir) -> anyhow::Result<Option<Exit>> {
    let words = match (status.view.ending, alive) {
        (None, true) => return Ok(None),
        (None, false) => {
            // It may have gone on since: look once more.
            match run_dir.status()? {
                Some(again) if again.view.ending.is_some() || again.alive() => return Ok(None),
                _ => "its coordinator is gone; `medevo-coord resume` goes on",
            }
        }
        (Some(_), _) => status.view.explain.as_str(),
    };
    crate::say::say(words);
    Ok(Some(status.view.ending.map_or(Exit::Failed, Exit::from)))
}
