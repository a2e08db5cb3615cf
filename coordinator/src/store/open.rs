//! Opens the store that a run file asks for.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use medevo_common::config::{RunConfig, StoreKind};
use medevo_store::{Embedded, Etcd, Settings, Store};

use super::records::TERM;

/// The store of the run in `run_dir`.
///
/// # Errors
/// What keeps it from being opened, and the way out.
pub fn open(config: &RunConfig, run_dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.store.kind {
        StoreKind::Embedded => Arc::new(Embedded::open(run_dir)?),
        StoreKind::Etcd => Arc::new(Etcd::open(&settings(config)?)?),
    })
}

/// What it takes to open the etcd store of a run; the password comes from the environment.
///
/// # Errors
/// When the variable that `store.password_env` names is not set.
pub fn settings(config: &RunConfig) -> anyhow::Result<Settings> {
    let section = &config.store;
    let password = match &section.password_env {
        Some(name) => Some(std::env::var(name).with_context(|| {
            format!("store.password_env names {name}, but that variable holds no password; set it")
        })?),
        None => None,
    };
    let mut settings =
        Settings::plain(section.endpoints.clone(), &section.prefix, &config.run.name);
    settings.user.clone_from(&section.user);
    settings.password = password;
    settings.ca.clone_from(&section.ca);
    settings.cert.clone_from(&section.cert);
    settings.key.clone_from(&section.key);
    settings.patience_s = section.patience_s;
    Ok(settings)
}

/// Makes sure that a new run does not go on where another of its name has stopped.
///
/// # Errors
/// When the store holds a run already, or cannot be read.
pub fn require_new(store: &dyn Store, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        store.get(TERM)?.is_none(),
        "the store holds a run named {name:?} already; go on with it by `medevo-coord resume`, or choose \
         another run.name or store.prefix"
    );
    Ok(())
}
