//! `logs`: what coordinator and workers wrote, as one.

use std::{
    io::{BufWriter, Write, stdout},
    thread::sleep,
    time::Duration,
};

use super::operator::Logs as Asked;
use crate::{
    launch::Exit,
    logs::Logs,
    preflight::Refused,
    run_dir::{RunDir, Status},
};

/// How often files are looked at that are followed.
const LOOK: Duration = Duration::from_millis(300);

/// Prints the logs of a run.
pub(super) fn logs(asked: Asked) -> anyhow::Result<Exit> {
    let run_dir = RunDir::open(&asked.run_dir).map_err(Refused::because)?;
    let mut logs = Logs::new(&run_dir.logs(), None);
    let sources = logs.look().map_err(Refused::because)?;
    if let Some(worker) = asked.worker {
        if !sources.contains(&worker) && !asked.follow {
            let there = if sources.is_empty() { "none".to_owned() } else { sources.join(", ") };
            return Err(Refused::new(format!(
                "there is no log of {worker} in {} (there: {there}); workers that were started elsewhere log where \
                 they were started",
                run_dir.logs().display()
            ))
            .into());
        }
        logs = Logs::new(&run_dir.logs(), Some(worker));
    }
    let mut out = BufWriter::new(stdout());
    loop {
        // Looked at first: what was written before the run ended is then read after it.
        let over = !asked.follow || !run_dir.status()?.is_some_and(|status| goes_on(&status));
        logs.look()?;
        while let Some(line) = logs.next_line()? {
            let wanted = asked.since.as_ref().is_none_or(|since| line.at >= *since);
            if wanted && writeln!(out, "{:<12} {}", line.source, line.text).is_err() {
                // Nobody reads any more.
                return Ok(Exit::Done);
            }
        }
        if out.flush().is_err() || over {
            return Ok(Exit::Done);
        }
        sleep(LOOK);
    }
}

fn goes_on(status: &Status) -> bool {
    status.alive()
}
