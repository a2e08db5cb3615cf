//! Where the run's coordinator is, and where the worker's lease is kept.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use medevo_rpc::Locate;
use medevo_store::{Handout, LEADER, LEADER_FILE, Store};
use medevo_types::messages::Seat;

/// A run directory: the leader's address is in its store, so it is found again when another coordinator takes over.
pub struct RunDir {
    path: PathBuf,
    store: OnceLock<Arc<dyn Store>>,
}

impl RunDir {
    /// The run in `path`, which may not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, store: OnceLock::new() }
    }

    /// The run's etcd, where it has one. Blocks as the store does.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn store(&self) -> anyhow::Result<Option<Arc<dyn Store>>> {
        if let Some(store) = self.store.get() {
            return Ok(Some(store.clone()));
        }
        match Handout::read(&self.path)? {
            Some(handout) => {
                let store = handout.open()?;
                Ok(Some(self.store.get_or_init(|| store).clone()))
            }
            None => Ok(None),
        }
    }

    fn words(&self) -> Result<Option<Vec<u8>>, String> {
        if let Some(store) = self.store().map_err(|error| format!("{error:#}"))? {
            return store.get(LEADER).map_err(|error| error.to_string());
        }
        let file = self.path.join(LEADER_FILE);
        match fs::read(&file) {
            Ok(words) => Ok(Some(words)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
        }
    }
}

impl Locate for RunDir {
    fn locate(&self) -> Result<String, String> {
        let Some(words) = self.words()? else {
            return Err(format!("no coordinator leads the run in {} now", self.path.display()));
        };
        let seat: Seat = serde_json::from_slice(&words)
            .map_err(|error| format!("the leader's words cannot be read: {error}"))?;
        Ok(seat.address)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_found_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().to_owned());
        assert!(run.locate().unwrap_err().contains("no coordinator leads"));
        for port in [7000, 7001] {
            let seat = format!(r#"{{"term": 1, "address": "127.0.0.1:{port}", "life": "a"}}"#);
            fs::write(dir.path().join(LEADER_FILE), seat).unwrap();
            assert_eq!(run.locate(), Ok(format!("127.0.0.1:{port}")));
        }
        fs::write(dir.path().join(LEADER_FILE), "{").unwrap();
        assert!(run.locate().is_err());
    }
}
