//! Publishing a checkpoint: rank 0's files are on disk; add what the scorers remember, check every byte,
//! then write the manifest. The pointer moves only after that (INV-5).

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use medevo_common::manifest::{FORMAT, Manifest, ManifestPosition, hash_file};
use medevo_core::api::CheckpointRef;
use medevo_types::{Digest, messages::FileEntry};

use super::scoring::STATE_FILE;

/// What the manifests of a run say about the run.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the run.
    pub run_id: String,
    /// Its seed.
    pub seed: u64,
    /// BLAKE3 of the resolved run file.
    pub config: Digest,
    /// Its directory.
    pub run_dir: PathBuf,
}

/// Checks `files`, adds the scorers' memory, writes and syncs the manifest. Blocks.
///
/// # Errors
/// Names the first file that is missing or does not match what was reported, or the file that could
/// not be written; then there is no manifest.
pub(super) fn publish(
    identity: &Identity,
    checkpoint: &CheckpointRef,
    mut files: Vec<FileEntry>,
    scorers: &[u8],
) -> anyhow::Result<()> {
    let dir = &checkpoint.dir;
    anyhow::ensure!(!files.is_empty(), "the workers reported no files for {}", dir.display());
    files.retain(|file| file.name != STATE_FILE);
    files.push(remember(dir, scorers)?);
    let manifest = Manifest {
        format: FORMAT,
        run_id: identity.run_id.clone(),
        step: checkpoint.step,
        policy: checkpoint.policy,
        position: ManifestPosition {
            stage: checkpoint.position.stage,
            done: checkpoint.position.done,
            extra: checkpoint.position.extra,
        },
        config: identity.config.clone(),
        seed: identity.seed,
        holding: checkpoint.holding.clone(),
        reference: checkpoint.reference.as_ref().map(|dir| {
            dir.strip_prefix(&identity.run_dir).map_or_else(|_| dir.clone(), Path::to_owned)
        }),
        files,
        written_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    manifest.verify(dir)?;
    manifest.write(dir)
}

fn remember(dir: &Path, scorers: &[u8]) -> anyhow::Result<FileEntry> {
    let path = dir.join(STATE_FILE);
    let write = || -> std::io::Result<FileEntry> {
        let mut file = File::create(&path)?;
        file.write_all(scorers)?;
        file.sync_all()?;
        let (bytes, digest) = hash_file(&path)?;
        Ok(FileEntry { name: STATE_FILE.into(), bytes, digest })
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// What tries at a checkpoint left that came to nothing: directories without a manifest. Call it when no
/// try is under way; no later try uses one of them, so they may be deleted at any time.
pub(super) fn unfinished(checkpoints: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(checkpoints) else { return Vec::new() };
    let tried = |dir: &PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let manifest = dir.join(medevo_common::manifest::MANIFEST_FILE);
        name.starts_with("step-") && dir.is_dir() && matches!(manifest.try_exists(), Ok(false))
    };
    entries.flatten().map(|entry| entry.path()).filter(tried).collect()
}

/// Takes away what tries at a checkpoint left that came to nothing. Call it once the run's driver has left.
pub(crate) fn tidy(checkpoints: &Path) {
    delete(&unfinished(checkpoints));
}

/// Deletes old checkpoints, the manifest first: what is half-deleted is no checkpoint. A failure only
/// costs space, so it is a warning.
pub(super) fn delete(old: &[PathBuf]) {
    for dir in old {
        let manifest = fs::remove_file(dir.join(medevo_common::manifest::MANIFEST_FILE));
        let gone = match manifest {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !dir.exists() => Ok(()),
            _ => fs::remove_dir_all(dir),
        };
        match gone {
            Ok(()) => tracing::info!("deleted the old checkpoint {}", dir.display()),
            Err(error) => {
                tracing::warn!(
                    "the old checkpoint {} could not be deleted: {error}",
                    dir.display()
                );
            }
        }
    }
}
