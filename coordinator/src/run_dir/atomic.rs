//! Files that a reader sees wholly or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use anyhow::Context;

/// Replaces `path` by `contents` in one step: write beside it, sync, rename, sync the folder. A reader, or
/// a start after a power cut, finds the old contents or the new, never a mixture.
///
/// # Errors
/// Names the file and what the system said.
pub fn write_atomic(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
