//! `status.json`: where the run stands, replaced as a whole several times a minute.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::Context;
use medevo_core::View;
use serde::{Deserialize, Serialize};

use super::{
    process::{born, host},
    time::now_ms,
};

/// Silence of a coordinator on another machine after which it is taken for gone, milliseconds. It writes twice a second.
const SILENCE: u64 = 30_000;

/// Where the run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the run.
    pub run: String,
    /// The core's view.
    pub view: View,
    /// Process id of the coordinator.
    pub pid: u32,
    /// The machine that it runs on.
    #[serde(default)]
    pub host: String,
    /// When that process began, in ticks since its machine did: tells it from a later one with its number.
    #[serde(default)]
    pub born: u64,
    /// When this coordinator started, milliseconds since 1970.
    pub started_at: u64,
    /// When this was written, milliseconds since 1970.
    pub updated_at: u64,
    /// Tokens drawn and trained on a second, over all workers, lately.
    pub tokens_per_s: Option<f64>,
    /// Time left, seconds, if it can be told yet.
    pub eta_s: Option<f64>,
    /// Figures of the last committed step, by name.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

impl Status {
    /// Replaces the status file. Not synced: after a power cut the event stream tells what happened, and
    /// a sync several times a minute would cost more than it gives.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let context = || format!("{} cannot be written", path.display());
        let temporary = path.with_file_name(".status.json.partial");
        let text = serde_json::to_vec_pretty(self).with_context(context)?;
        fs::write(&temporary, text).with_context(context)?;
        fs::rename(&temporary, path).with_context(context)
    }

    /// Reads the status file; none if there is none yet, or an empty one as a power cut may leave it.
    ///
    /// # Errors
    /// Names the file that cannot be read or is of another layout.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is no status of this version", path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
        }
    }
}

impl Status {
    /// Whether the coordinator that wrote this was on this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.host.is_empty() || self.host == host()
    }

    /// Whether the coordinator that wrote this still runs: here by its process, elsewhere by its last word.
    #[must_use]
    pub fn alive(&self) -> bool {
        if self.is_here() {
            born(self.pid).is_some_and(|now| now == self.born)
        } else {
            self.view.ending.is_none() && now_ms().abs_diff(self.updated_at) < SILENCE
        }
    }
}
