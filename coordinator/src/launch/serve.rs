//! `serve`: a coordinator without workers of its own, leading or standing by.

use std::path::{Path, PathBuf};

use medevo_common::config::RunConfig;
use medevo_core::api::Outcome;

use super::{
    Exit, Signals,
    carry::{Local, Task, carry},
    entrance::{Entrance, listen, security},
    lead::{stand_by, take_lead},
    local::copies_if_any,
};
use crate::{
    preflight::{self, Refused},
    run_dir::RunDir,
    say::say,
    store::{self, outcome},
};

/// What `serve` was asked for.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The run file, or the directory of a run that exists.
    pub target: PathBuf,
    /// Overrides for a run file, `key=value`.
    pub set: Vec<String>,
    /// Run directory; `None`: as the run file says, else `runs/<name>`.
    pub run_dir: Option<PathBuf>,
    /// Where the join token is; `None`: in the environment, else in the run directory.
    pub token_file: Option<PathBuf>,
    /// Under which host workers reach this coordinator; `None`: as the run file says.
    pub advertise: Option<String>,
    /// Wait while another coordinator leads, and take over when it is gone.
    pub standby: bool,
}

/// Leads a run whose workers come by themselves, or stands by for whoever does.
///
/// # Errors
/// [`Refused`] (as the error's cause) for input that is not usable, also when another coordinator leads and this one
/// is no standby. Otherwise what broke.
pub async fn serve(asked: Serve) -> anyhow::Result<Exit> {
    // Early: what Slurm or Kubernetes asks for meanwhile is heeded then, and is no broken coordinator.
    let mut signals = Signals::catch()?;
    let (mut config, place) = configuration(&asked)?;
    if asked.advertise.is_some() {
        config.cluster.advertise.clone_from(&asked.advertise);
    }
    let config = config.validate().map_err(Refused::because)?;
    let plan = preflight::check(&config, &place, None)?;
    let security = security(&config)?;
    let run_dir = directory(&place, &config)?;
    run_dir.make_folders()?;
    let token_file = asked.token_file.as_deref();
    let (lead, entrance) = if asked.standby {
        signals.heed_standing_by(&run_dir);
        let Some((lead, listener)) = stand_by(&config, &run_dir, &mut signals).await? else {
            return Ok(Exit::Drained);
        };
        (lead, Entrance::open(listener, security, token_file, &run_dir)?)
    } else {
        let entrance = Entrance::open(listen(&config).await?, security, token_file, &run_dir)?;
        let store = store::open(&config, run_dir.path()).map_err(Refused::because)?;
        (take_lead(&config, &run_dir, store, &entrance.address(&config)?).await?, entrance)
    };
    if let Some(Outcome::Done) = outcome(lead.store().as_ref())? {
        say(format!("The run in {} is done already.", run_dir.path().display()));
        return Ok(Exit::Done);
    }
    let local = Local { workers: 0, binary: None };
    let copies = copies_if_any(&config).await?;
    carry(Task { config, plan, run_dir, lead, local, entrance, copies }, signals).await
}

/// The run's configuration and place: that of the directory where the run exists.
fn configuration(asked: &Serve) -> anyhow::Result<(RunConfig, PathBuf)> {
    if asked.target.is_dir() {
        if !asked.set.is_empty() || asked.run_dir.is_some() {
            return Err(Refused::new(format!(
                "{} is a run that exists: it goes on as it is, without --set and --run-dir",
                asked.target.display()
            ))
            .into());
        }
        let run_dir = RunDir::open(&asked.target).map_err(Refused::because)?;
        return Ok((run_dir.config().map_err(Refused::because)?, run_dir.path().to_owned()));
    }
    let config = RunConfig::load(&asked.target, &asked.set).map_err(Refused::because)?;
    let place = asked
        .run_dir
        .clone()
        .or_else(|| config.run.dir.clone())
        .unwrap_or_else(|| Path::new("runs").join(&config.run.name));
    let place = std::path::absolute(&place).map_err(Refused::because)?;
    match RunDir::open(&place) {
        Ok(run_dir) => Ok((run_dir.config().map_err(Refused::because)?, place)),
        Err(_) => Ok((config, place)),
    }
}

/// The run's directory, made if nobody has; several coordinators of a run may start together.
fn directory(place: &Path, config: &RunConfig) -> anyhow::Result<RunDir> {
    match RunDir::open(place) {
        Ok(run_dir) => Ok(run_dir),
        Err(_) => match RunDir::create(place, config) {
            Ok(run_dir) => Ok(run_dir),
            Err(error) => RunDir::open(place).map_err(|_| Refused::because(error).into()),
        },
    }
}
