//! Putting back from its copy what is damaged here.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;
use medevo_common::manifest::{MANIFEST_FILE, Manifest, sync_dir};
use medevo_core::api::CheckpointRef;
use tokio::{runtime::Handle, task::block_in_place, time::timeout};

use super::{Destination, fetch::beside};
use crate::store::{is_checkpoint, matches};

/// Fetches a recorded checkpoint, and the KL reference that it names, where they are not whole here, each into a fresh
/// directory; once that is verified it takes the damaged one's place. Blocks; call it on a thread of a runtime with
/// several. A sentence that says what was fetched.
///
/// # Errors
/// There is no good copy of that very checkpoint, or it does not arrive within `deadline`.
pub fn mend(
    from: &Destination,
    checkpoint: &CheckpointRef,
    deadline: Duration,
) -> anyhow::Result<String> {
    let mut fetched = Vec::new();
    let reference = checkpoint.reference.iter().filter(|dir| is_checkpoint(dir));
    for dir in reference.chain([&checkpoint.dir]) {
        if sound(dir) {
            continue;
        }
        let wanted = |manifest: &Manifest, _: &[u8]| match *dir == checkpoint.dir {
            true => matches(checkpoint, manifest),
            false => Ok(()),
        };
        let name = dir.file_name().context("a checkpoint's directory has a name")?;
        let copy = from.child(&name.to_string_lossy());
        let fresh = beside(dir, ".fetched");
        let fetch = async {
            remove(&fresh)?;
            copy.fetch(&fresh, wanted).await
        };
        let within = async {
            timeout(deadline, fetch).await.with_context(|| {
                format!("{} did not arrive within {} s", copy.url(), deadline.as_secs())
            })?
        };
        let arrived = block_in_place(|| Handle::current().block_on(within))?;
        remove(dir)?;
        fs::rename(&fresh, dir)
            .with_context(|| format!("{} cannot be put in place", dir.display()))?;
        sync_dir(dir.parent().context("a checkpoint lies in a folder")?)?;
        fetched.push(arrived.url);
    }
    anyhow::ensure!(!fetched.is_empty(), "its files are whole, so that no copy would help");
    Ok(format!("fetched {} and verified it", fetched.join(" and ")))
}

fn sound(dir: &Path) -> bool {
    Manifest::read(dir).and_then(|manifest| manifest.verify(dir)).is_ok()
}

/// Removes a directory, if it is there, the manifest first: what is half-removed is no checkpoint.
fn remove(dir: &Path) -> anyhow::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let _ = fs::remove_file(dir.join(MANIFEST_FILE));
    fs::remove_dir_all(dir).with_context(|| format!("{} cannot be removed", dir.display()))
}
