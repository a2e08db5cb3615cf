//! Output directories: nobody's files are written over, and what stands in the final place is whole.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Refuses a directory that holds anything.
///
/// # Errors
/// Names the directory, and what to do.
pub(crate) fn refuse_used(out: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(out) {
        Ok(mut entries) => anyhow::ensure!(
            entries.next().is_none(),
            "{} is not empty; remove it or choose another --out",
            out.display()
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot look into {}", out.display())),
    }
    Ok(())
}

/// Has `fill` write a directory beside `out`, then moves it there.
///
/// # Errors
/// What `fill` says, or a disk that refuses.
pub(crate) fn write(
    out: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Its components, so that a slash at the end does not lead inside.
    let mut beside = out.components().collect::<PathBuf>().into_os_string();
    beside.push(".part");
    let beside = Path::new(&beside);
    if beside.exists() {
        std::fs::remove_dir_all(beside)
            .with_context(|| format!("cannot remove {} of an earlier try", beside.display()))?;
    }
    std::fs::create_dir_all(beside).with_context(|| format!("cannot make {}", beside.display()))?;
    fill(beside)?;
    sync(beside)?;
    std::fs::rename(beside, out)
        .with_context(|| format!("cannot move the model to {}", out.display()))?;
    match beside.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_one(parent),
        None => sync_one(Path::new(".")),
    }
}

/// Flushes a directory and the files in it to the disk: what stands in the final place is whole after a power
/// cut, too.
fn sync(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        sync_one(&entry.with_context(|| format!("cannot list {}", dir.display()))?.path())?;
    }
    sync_one(dir)
}

fn sync_one(path: &Path) -> anyhow::Result<()> {
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot flush {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn used_directory_is_refused_and_a_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_used(dir.path()).is_ok());
        assert!(refuse_used(&dir.path().join("new")).is_ok());
        std::fs::write(dir.path().join("x"), "").unwrap();
        assert!(refuse_used(dir.path()).unwrap_err().to_string().contains("not empty"));
        assert!(refuse_used(&dir.path().join("x")).is_err());
    }

    #[test]
    fn nothing_half_written_stands_in_the_final_place() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let broken = write(&out, |beside| {
            std::fs::write(beside.join("half"), "")?;
            anyhow::bail!("the disk is full")
        });
        assert!(broken.is_err() && !out.exists());
        write(&out, |beside| Ok(std::fs::write(beside.join("whole"), "")?)).unwrap();
        assert!(out.join("whole").exists() && !out.join("half").exists());
    }
}
