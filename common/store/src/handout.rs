//! What a run's processes find of its store and its leader in the run directory.

use std::{fs, io, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Etcd, Settings, Store, StoreError};

/// Key under which the leader says where it is ([`medevo_types::messages::Seat`] as JSON); it goes with its lease.
pub const LEADER: &str = "leader";
/// Prefix of the workers' keys, `workers/<name>/<incarnation>`; each goes with its worker's lease.
pub const WORKERS: &str = "workers/";
/// The leader's words in the run directory, where the store is embedded.
pub const LEADER_FILE: &str = "leader.json";
/// [`Handout`] in the run directory, where the store is etcd.
pub const STORE_FILE: &str = "store.json";

/// How to reach the run's etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handout {
    /// Where it is; without the password.
    pub settings: Settings,
    /// Environment variable that holds the password, where there is one.
    #[serde(default)]
    pub password_env: Option<String>,
}

impl Handout {
    /// What lies in `run_dir`; None where the run's store is embedded, or nothing has been written yet.
    ///
    /// # Errors
    /// The file cannot be read, or is of another version.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = run_dir.join(STORE_FILE);
        let damaged =
            |error: String| StoreError::Damaged { key: path.display().to_string(), error };
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|error| damaged(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// The password's variable is not set, or as [`Etcd::open`].
    pub fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut settings = self.settings.clone();
        if let Some(name) = &self.password_env {
            let password = std::env::var(name).map_err(|_| StoreError::Refused {
                endpoint: settings.endpoints.join(", "),
                error: format!("{name} holds no password for it; set that environment variable"),
            })?;
            settings.password = Some(password);
        }
        Ok(Arc::new(Etcd::open(&settings)?))
    }
}
