//! `doctor`: prints what the checks found.

use std::{path::Path, time::Duration};

use anyhow::Context;
use medevo_common::config::RunConfig;

use super::{attended, operator::Doctor};
use crate::{
    doctor::{Grade, Nodes, examine, table},
    launch::Exit,
    preflight::Refused,
    run_dir::RunDir,
    say::say,
};

/// Checks, prints, and fails if anything has.
pub(super) fn doctor(asked: Doctor) -> anyhow::Result<Exit> {
    let run = match &asked.target {
        None if asked.nodes > 0 => {
            return Err(Refused::new(
                "name a run file or a run directory, for --nodes to meet beside",
            )
            .into());
        }
        None => None,
        Some(dir) if dir.is_dir() => {
            let run_dir = RunDir::open(dir).map_err(Refused::because)?;
            Some((run_dir.config().map_err(Refused::because)?, run_dir.path().to_owned()))
        }
        Some(file) => {
            let config = RunConfig::load(file, &asked.set).map_err(Refused::because)?;
            let place = asked.run_dir.clone().or_else(|| config.run.dir.clone());
            let place = place.unwrap_or_else(|| Path::new("runs").join(&config.run.name));
            Some((config, std::path::absolute(place).map_err(Refused::because)?))
        }
    };
    let nodes = Nodes {
        number: asked.nodes,
        address: asked.address,
        patience: Duration::from_secs_f64(asked.timeout),
    };
    attended(async {
        let run = run.as_ref().map(|(config, place)| (config, place.as_path()));
        let findings = examine(run, &nodes).await;
        if asked.json {
            say(serde_json::to_string_pretty(&findings).context("encoding the findings")?);
        } else {
            say(table(&findings).trim_end());
        }
        let failed = findings.iter().any(|finding| finding.grade == Grade::Failed);
        Ok(if failed { Exit::Failed } else { Exit::Done })
    })
}
