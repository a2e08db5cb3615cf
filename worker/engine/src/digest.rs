//! BLAKE3 over files and over tensors' fingerprints.

use std::{fs::File, path::Path};

use anyhow::Context;
use medevo_types::{Digest, messages::FileEntry};

use crate::fingerprint::Fingerprint;

/// Digest of a fingerprint, for messages.
pub(crate) fn of_fingerprint(print: Fingerprint) -> Digest {
    let mut hasher = blake3::Hasher::new();
    add_fingerprint(&mut hasher, print);
    finish(&hasher)
}

/// Adds a fingerprint to a digest.
pub(crate) fn add_fingerprint(hasher: &mut blake3::Hasher, print: Fingerprint) {
    for sum in print.0 {
        hasher.update(&sum.to_le_bytes());
    }
}

pub(crate) fn finish(hasher: &blake3::Hasher) -> Digest {
    Digest(hasher.finalize().to_hex().to_string())
}

/// Flushes those files of `dir` whose names `ours` picks, and the directory itself, to the disk, and lists them by
/// name.
pub(crate) fn sync_and_list(
    dir: &Path,
    ours: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.expect("a directory entry has a name");
        if !ours(&name) || !path.is_file() {
            continue;
        }
        let at = || format!("cannot flush and read back {}", path.display());
        let file = File::open(&path).with_context(at)?;
        file.sync_all().with_context(at)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).with_context(at)?;
        entries.push(FileEntry {
            name,
            bytes: file.metadata().with_context(at)?.len(),
            digest: finish(&hasher),
        });
    }
    let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    folder.sync_all().with_context(|| format!("cannot flush {}", dir.display()))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
