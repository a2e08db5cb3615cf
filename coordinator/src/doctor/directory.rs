//! The place of the run directory: can it be made, does its file system lock and sync, has it room?

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use medevo_common::config::RunConfig;
use rustix::fs::{FlockOperation, flock, statvfs};

use super::{Finding, model::weights};
use crate::budget::gibibytes;

/// Bytes that a checkpoint takes for each byte of f32 weights: weights and two moments.
const CHECKPOINT: u64 = 3;
/// Everything that is no checkpoint: logs, samples, store.
const REST: u64 = 1 << 30;

/// Writing, locking and room.
pub(super) fn findings(config: &RunConfig, place: &Path) -> Vec<Finding> {
    let above = existing(place);
    let shown = above.display();
    if let Err(error) = try_out(&above) {
        return vec![Finding::failed(
            "run directory",
            format!("{error:#}"),
            "choose another with --run-dir or `run.dir`, on a file system that locks and syncs",
        )];
    }
    let mut findings =
        vec![Finding::ok("run directory", format!("{shown} can be written, locked and synced"))];
    findings.extend(room(config, &above));
    findings
}

/// The directory itself, or the nearest above it that exists.
pub(super) fn existing(place: &Path) -> PathBuf {
    let found = place.ancestors().find(|dir| dir.is_dir() && !dir.as_os_str().is_empty());
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Does in `dir` what a run does, and leaves nothing.
fn try_out(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(format!(".medevo-doctor-{}", std::process::id()));
    let beside = file.with_extension("partial");
    let tried = write_and_lock(dir, &file, &beside);
    for left in [&file, &beside] {
        // It may not be there.
        let _ = fs::remove_file(left);
    }
    tried.with_context(|| format!("{} is no place for a run", dir.display()))
}

fn write_and_lock(dir: &Path, file: &Path, beside: &Path) -> io::Result<()> {
    let mut written = File::create(beside)?;
    written.write_all(b"a run writes like this")?;
    written.sync_all()?;
    fs::rename(beside, file)?;
    File::open(dir)?.sync_all()?;
    let first = OpenOptions::new().write(true).open(file)?;
    let second = OpenOptions::new().write(true).open(file)?;
    flock(&first, FlockOperation::NonBlockingLockExclusive)?;
    match flock(&second, FlockOperation::NonBlockingLockExclusive) {
        Err(_) => Ok(()),
        Ok(()) => {
            Err(io::Error::other("its locks do not lock: two coordinators could lead at once"))
        }
    }
}

/// Whether there is room for the checkpoints that are kept, and the one that is being written.
fn room(config: &RunConfig, above: &Path) -> Option<Finding> {
    let stat = match statvfs(above) {
        Ok(stat) => stat,
        Err(error) => {
            return Some(Finding::warning(
                "room",
                format!("the file system does not say: {error}"),
                "see to it yourself",
            ));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let kept = (config.checkpoint.keep + config.checkpoint.keep_best) as u64 + 1;
    let one = match &config.lora {
        // An adapter's checkpoint is small.
        Some(_) => 0,
        None => weights(&config.model.path) * CHECKPOINT,
    };
    let needed = one * kept + REST;
    let found = format!("{} free, about {} needed", gibibytes(free), gibibytes(needed));
    Some(if free >= needed {
        Finding::ok("room", found)
    } else if free >= 2 * one + REST / 10 {
        Finding::warning("room", found, "lower checkpoint.keep, or free some space")
    } else {
        Finding::failed("room", found, "free some space, or choose another run directory")
    })
}
