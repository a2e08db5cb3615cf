//! Taking the lead of a run, at once or when it becomes free.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use medevo_common::config::{StoreKind, ValidConfig};
use medevo_store::{Handout, LEADER_FILE, STORE_FILE, Store, StoreError};
use tokio::{net::TcpListener, task::spawn_blocking};

use super::{
    Signals,
    alive::Alive,
    entrance::{address, listen},
};
use crate::{
    leadership::{Lead, campaign},
    preflight::Refused,
    run_dir::{RunDir, write_atomic},
    say::say,
    store,
};

/// How often a standby looks whether the lead is free.
const LOOK: Duration = Duration::from_millis(200);

/// Takes the lead at once.
///
/// # Errors
/// [`Refused`]: another coordinator has it.
pub(super) async fn take_lead(
    config: &ValidConfig,
    run_dir: &RunDir,
    store: Arc<dyn Store>,
    address: &str,
) -> anyhow::Result<Lead> {
    publish_store(config, run_dir)?;
    match run(config, run_dir, store, address).await? {
        Ok(lead) => Ok(lead),
        Err(who) => Err(Refused::new(format!(
            "another coordinator leads this run already ({who}); wait for it to end, or stand by for it with \
             `medevo-coord serve {} --standby`",
            run_dir.path().display()
        ))
        .into()),
    }
}

/// Waits until nobody leads, and takes the lead then. None: a signal came first.
///
/// # Errors
/// The store is broken or refuses.
pub(super) async fn stand_by(
    config: &ValidConfig,
    run_dir: &RunDir,
    signals: &mut Signals,
) -> anyhow::Result<Option<(Lead, TcpListener)>> {
    publish_store(config, run_dir)?;
    let (mut opened, mut listener, mut told) = (None, None, String::new());
    let alive = Alive::from_env();
    loop {
        alive.touch();
        let who = match open(config, run_dir, &mut opened).await? {
            None => "the coordinator that holds its store".to_owned(),
            Some(store) => {
                if listener.is_none() {
                    listener = Some(listen(config).await?);
                }
                let bound = listener.as_ref().context("a listener was just made")?;
                match run(config, run_dir, store, &address(bound, config)?).await {
                    Ok(Ok(lead)) => return Ok(listener.map(|listener| (lead, listener))),
                    Ok(Err(who)) => who,
                    // A store that is away is no reason to give up standing by.
                    Err(error) if passing(&error) => format!("nobody that can be told ({error:#})"),
                    Err(error) => return Err(error),
                }
            }
        };
        if told != who {
            say(format!("standing by for {} (leader: {who})", run_dir.path().display()));
            told = who;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = signals.next() => return Ok(None),
        }
    }
}

fn passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StoreError>().is_some_and(StoreError::is_passing)
}

/// The run's store; None while another process has an embedded one.
async fn open(
    config: &ValidConfig,
    run_dir: &RunDir,
    opened: &mut Option<Arc<dyn Store>>,
) -> anyhow::Result<Option<Arc<dyn Store>>> {
    if opened.is_none() {
        let (config, place) = (config.clone(), run_dir.path().to_owned());
        let tried = spawn_blocking(move || store::open(&config, &place));
        match tried.await.context("opening the store broke off")? {
            Ok(store) => *opened = Some(store),
            Err(error) => match error.downcast_ref::<StoreError>() {
                Some(StoreError::Busy { .. }) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(opened.clone())
}

/// One try at the lead; who has it, if another has.
async fn run(
    config: &ValidConfig,
    run_dir: &RunDir,
    store: Arc<dyn Store>,
    address: &str,
) -> anyhow::Result<Result<Lead, String>> {
    let ttl = Duration::from_secs_f64(config.store.leader_ttl_s);
    let address = address.to_owned();
    let tried = spawn_blocking(move || campaign(&store, &address, ttl));
    Ok(match tried.await.context("the campaign broke off")?? {
        Ok(lead) => {
            if config.store.kind == StoreKind::Embedded {
                write_atomic(&run_dir.path().join(LEADER_FILE), lead.words())?;
            }
            Ok(lead)
        }
        Err(Some(seat)) => Err(format!("{}, term {}", seat.address, seat.term)),
        Err(None) => Err("it has just been taken".to_owned()),
    })
}

/// Says in the run directory how workers reach the run's etcd.
fn publish_store(config: &ValidConfig, run_dir: &RunDir) -> anyhow::Result<()> {
    if config.store.kind == StoreKind::Embedded {
        return Ok(());
    }
    let settings = store::settings(config).map_err(Refused::because)?;
    let handout = Handout { settings, password_env: config.store.password_env.clone() };
    let text = serde_json::to_vec_pretty(&handout).context("writing down where the store is")?;
    write_atomic(&run_dir.path().join(STORE_FILE), &text)
}
