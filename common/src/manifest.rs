//! The manifest of a checkpoint: what the files are, and where the run goes on from them.
//!
//! INV-5: a published manifest names only files that are wholly written and whose hashes match. Rank 0
//! writes and syncs the files and reports their hashes; the coordinator checks them ([`Manifest::verify`])
//! and writes the manifest last, so a directory without one is no checkpoint.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use medevo_types::{Digest, PolicyVersion, Step, messages::FileEntry};
use serde::{Deserialize, Serialize};

/// Name of the manifest in a checkpoint's directory.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Version of the manifest's layout that this build writes and reads.
pub const FORMAT: u32 = 1;

/// What a checkpoint holds. Weights lie beside it in Hugging Face layout and open in transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout of this file; [`FORMAT`].
    pub format: u32,
    /// Name of the run that wrote it.
    pub run_id: String,
    /// Last committed step in it.
    pub step: Step,
    /// Version of its weights.
    pub policy: PolicyVersion,
    /// Where the run goes on from.
    pub position: ManifestPosition,
    /// BLAKE3 of the resolved run file.
    pub config: Digest,
    /// Seed of the run; all random numbers follow from it and the counters above.
    pub seed: u64,
    /// What every worker must report holding once it has restored this.
    pub holding: Digest,
    /// KL reference of the stage that it lies in, relative to the run directory; none before the first
    /// checkpoint, where the starting model is the reference.
    pub reference: Option<PathBuf>,
    /// Weights and moments.
    pub files: Vec<FileEntry>,
    /// When it was written, seconds since 1970.
    pub written_at: u64,
}

/// Stage and steps done in it; the coordinator's `Position` in plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPosition {
    /// Index of the stage.
    pub stage: usize,
    /// Steps of that stage that are committed.
    pub done: u64,
    /// Questions that dynamic sampling has drawn in it beyond the usual.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extra: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a checkpoint is not good: the first file that is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ManifestProblem {
    /// No manifest, or one that cannot be read.
    #[error("{path} cannot be read as a checkpoint manifest: {reason}")]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Written by another version of the program.
    #[error("{path} has manifest format {found}, but this program reads format {FORMAT}")]
    Format {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A name that leads out of the directory.
    #[error(
        "the manifest names {0:?}, which is not a plain file name in the checkpoint's directory"
    )]
    Name(String),
    /// A file is not there.
    #[error("{0} is missing from the checkpoint")]
    Missing(PathBuf),
    /// A file is cut off or grown.
    #[error("{path} has {found} bytes, but the manifest says {expected}")]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A file holds other bytes.
    #[error("{0} does not have the BLAKE3 digest that the manifest says: its contents changed")]
    Contents(PathBuf),
    /// A file could not be read.
    #[error("{path} cannot be read: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Manifest {
    /// Writes `manifest.json` so that it is there wholly or not at all, also after a power cut.
    ///
    /// # Errors
    /// Names the file that could not be written, synced or renamed.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(MANIFEST_FILE);
        let temporary = dir.join(".manifest.json.partial");
        let mut text = serde_json::to_vec_pretty(self).context("the manifest cannot be encoded")?;
        text.push(b'\n');
        let mut file = File::create(&temporary)
            .with_context(|| format!("{} cannot be created", temporary.display()))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("{} cannot be written", temporary.display()))?;
        fs::rename(&temporary, &path)
            .with_context(|| format!("{} cannot be put in place", path.display()))?;
        sync_dir(dir)?;
        // The directory's own name, too: a record that outlives it would point at nothing.
        dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
    }

    /// Reads a directory's manifest. The files are not looked at: see [`Manifest::verify`].
    ///
    /// # Errors
    /// [`ManifestProblem::Unreadable`] or [`ManifestProblem::Format`].
    pub fn read(dir: &Path) -> Result<Self, ManifestProblem> {
        let path = dir.join(MANIFEST_FILE);
        let text = fs::read(&path).map_err(|e| ManifestProblem::Unreadable {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        Self::parse(&text, &path)
    }

    /// Reads a manifest's bytes; `path` names them in messages.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, ManifestProblem> {
        let unreadable =
            |reason: String| ManifestProblem::Unreadable { path: path.to_owned(), reason };
        // The format first: another format may well not parse, and that is not the thing to say.
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|e| unreadable(e.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                Err(ManifestProblem::Format { path: path.to_owned(), found })
            }
            _ => serde_json::from_value(value).map_err(|e| unreadable(e.to_string())),
        }
    }

    /// Checks that the files' names are plain ones, so that nothing outside a directory is read or written.
    ///
    /// # Errors
    /// [`ManifestProblem::Name`], the first that is not.
    pub fn check_names(&self) -> Result<(), ManifestProblem> {
        for entry in &self.files {
            let mut parts = Path::new(&entry.name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(ManifestProblem::Name(entry.name.clone()));
            }
        }
        Ok(())
    }

    /// Checks every file in `dir` against the manifest: there, right size, right BLAKE3 (INV-5). All sizes
    /// are looked at before any file is read, since that is quick and finds most damage.
    ///
    /// # Errors
    /// The first file that is at fault.
    pub fn verify(&self, dir: &Path) -> Result<(), ManifestProblem> {
        self.check_names()?;
        for entry in &self.files {
            let path = dir.join(&entry.name);
            let found = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => return Err(ManifestProblem::Missing(path)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(ManifestProblem::Missing(path));
                }
                Err(error) => return Err(ManifestProblem::Io { path, error }),
            };
            if found != entry.bytes {
                return Err(ManifestProblem::Size { path, expected: entry.bytes, found });
            }
        }
        for entry in &self.files {
            let path = dir.join(&entry.name);
            match hash_file(&path) {
                Ok((_, digest)) if digest == entry.digest => {}
                Ok(_) => return Err(ManifestProblem::Contents(path)),
                Err(error) => return Err(ManifestProblem::Io { path, error }),
            }
        }
        Ok(())
    }
}

/// Flushes a directory's entries to the disk.
///
/// # Errors
/// Names the directory and what the system said.
pub fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("{} cannot be synced", dir.display()))
}

/// Size in bytes and BLAKE3 of a file, read in pieces.
///
/// # Errors
/// What the system says when the file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok((hasher.count(), Digest(hasher.finalize().to_hex().to_string())))
}
