//! The run's store: reached, and with the rights that a run needs.

use std::{path::Path, sync::Arc, time::Duration};

use medevo_common::config::{StoreKind, ValidConfig};
use medevo_store::{Guard, Store, StoreError, Write};
use tokio::{task::spawn_blocking, time::timeout};

use super::Finding;
use crate::store;

/// The one key that is written, and deleted again.
const KEY: &str = "doctor";
/// How long a change may take to be seen.
const SEEN: Duration = Duration::from_secs(5);
/// How long the whole check may take on top of the store's own patience.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does with the store what a run does.
pub(super) async fn finding(config: &ValidConfig, place: &Path) -> Finding {
    if config.store.kind == StoreKind::Embedded {
        return embedded(place);
    }
    let endpoints = config.store.endpoints.join(", ");
    let (config, place) = (config.clone(), place.to_owned());
    let tried = spawn_blocking(move || {
        let store = store::open(&config, &place).map_err(|error| format!("{error:#}"))?;
        try_out(store)
    });
    let failed = |words: String| {
        Finding::failed(
            "store",
            words,
            "see that etcd is up at store.endpoints, and that its user may read, write and watch everything under \
             store.prefix (`etcdctl role get`)",
        )
    };
    match timeout(PATIENCE, tried).await {
        Ok(Ok(Ok(()))) => Finding::ok(
            "store",
            format!("etcd at {endpoints}: read, write, delete, lease and watch"),
        ),
        Ok(Ok(Err(words))) => failed(words),
        Ok(Err(error)) => failed(format!("the check broke off: {error}")),
        Err(_) => {
            failed(format!("etcd at {endpoints} has not answered for {} s", PATIENCE.as_secs()))
        }
    }
}

/// One file, made by the run itself; there is something to see only of a run that exists.
fn embedded(place: &Path) -> Finding {
    if !place.join("store.redb").is_file() {
        return Finding::ok("store", "a file in the run directory, made when the run starts");
    }
    match medevo_store::Embedded::open(place) {
        Ok(_) => Finding::ok("store", "a file in the run directory; no coordinator has it open"),
        Err(StoreError::Busy { .. }) => {
            Finding::ok("store", "a file in the run directory; the run's coordinator has it open")
        }
        Err(error) => Finding::failed(
            "store",
            error.to_string(),
            "the runbook resume-elsewhere shows how to go on from a checkpoint without it",
        ),
    }
}

/// Each right that a run needs, by name where it is missing.
fn try_out(store: Arc<dyn Store>) -> Result<(), String> {
    let may = |what: &str| {
        let what = what.to_owned();
        move |error: StoreError| format!("may not {what}: {error}")
    };
    let snapshot = store.list(KEY).map_err(may("read"))?;
    let mut watch = store.watch(KEY, snapshot.revision).map_err(may("watch"))?;
    let lease = store.grant(Duration::from_secs(10)).map_err(may("have a lease"))?;
    let value = std::process::id().to_string().into_bytes();
    let write = Write::leased(KEY, value.clone(), lease);
    store.transact(&[], &[write]).map_err(may("write"))?;
    let seen = watch.wait(SEEN).map_err(may("watch"))?;
    let read = store.get(KEY).map_err(may("read"))?;
    store.renew(lease).map_err(may("renew a lease"))?;
    let guard = Guard { key: KEY.to_owned(), expected: Some(value.clone()) };
    store.transact(&[guard], &[Write::delete(KEY)]).map_err(may("delete"))?;
    store.revoke(lease).map_err(may("revoke a lease"))?;
    if read != Some(value) {
        return Err("does not give back what was written: is another doctor at work?".to_owned());
    }
    if seen.is_empty() {
        return Err(format!("a change was not seen within {} s", SEEN.as_secs()));
    }
    Ok(())
}
