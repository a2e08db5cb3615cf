//! Scored candidates on disk, until a checkpoint makes them needless: a coordinator that takes over scores them again
//! instead of having them drawn again, and its scorers remember what they would have remembered.
//!
//! A file a step and term, `00000012-000003.bin`; questions' answers are in it, so it lies in the run directory. It is
//! a help and no record: one that is missing or torn costs a rollback to the checkpoint, never a wrong figure.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use medevo_core::api::Rollout;
use medevo_types::{Step, Term};

use crate::run_dir::write_atomic;

/// The folder, as a coordinator of one term writes into it.
#[derive(Clone, Debug)]
pub(super) struct Rollouts {
    folder: PathBuf,
    term: Term,
}

impl Rollouts {
    pub(super) fn new(folder: PathBuf, term: Term) -> Self {
        Self { folder, term }
    }

    /// Keeps the candidates of a step; those that this term kept of it before are replaced. Blocks.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub(super) fn keep(&self, rollout: &Rollout) -> anyhow::Result<()> {
        let path = self.folder.join(format!("{:08}-{:06}.bin", rollout.step.0, self.term.0));
        let bytes = bincode::serialize(rollout).context("writing down scored candidates")?;
        write_atomic(&path, &bytes)
    }

    /// What is kept of the steps in `(after, upto]`, the latest term's of each. What cannot be read is left out,
    /// with a warning. Blocks.
    pub(super) fn read(&self, after: Step, upto: Step) -> BTreeMap<Step, Rollout> {
        let mut files: Vec<((u64, u64), PathBuf)> = self.files().collect();
        files.sort();
        let mut kept = BTreeMap::new();
        for ((step, _), path) in files {
            if step <= after.0 || step > upto.0 {
                continue;
            }
            match read(&path) {
                Ok(rollout) => drop(kept.insert(rollout.step, rollout)),
                Err(error) => {
                    tracing::warn!("scored candidates are lost: {error:#}");
                    kept.remove(&Step(step));
                }
            }
        }
        kept
    }

    /// Deletes what is kept of steps up to `step`: a checkpoint stands behind them. Blocks; a failure only costs
    /// space.
    pub(super) fn prune(&self, step: Step) {
        for ((of, _), path) in self.files() {
            if of <= step.0
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!("{} could not be deleted: {error}", path.display());
            }
        }
    }

    /// Step and term of every file, and where it lies.
    fn files(&self) -> impl Iterator<Item = ((u64, u64), PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let (step, term) = name.to_str()?.strip_suffix(".bin")?.split_once('-')?;
            Some(((step.parse().ok()?, term.parse().ok()?), entry.path()))
        })
    }
}

fn read(path: &Path) -> anyhow::Result<Rollout> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    bincode::deserialize(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

#[cfg(test)]
mod tests {
    use medevo_types::{Digest, PolicyVersion};

    use super::*;

    fn rollout(step: u64, holding: &str) -> Rollout {
        Rollout {
            stage: 0,
            step: Step(step),
            policy: PolicyVersion(step),
            holding: Digest(holding.into()),
            rounds: vec![0],
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_latest_term_counts_and_a_torn_file_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |term| Rollouts::new(folder.path().to_owned(), Term(term));
        for step in 1..=4 {
            of(1).keep(&rollout(step, "first")).expect("written");
        }
        of(2).keep(&rollout(3, "second")).expect("written");
        let torn = folder.path().join("00000004-000002.bin");
        fs::write(&torn, b"\x01").expect("written");
        let read = of(3).read(Step(1), Step(4));
        let found: Vec<(u64, &str)> =
            read.values().map(|r| (r.step.0, r.holding.0.as_str())).collect();
        // Of step 4 the older one is not taken in place of the torn one: it may be of weights that are void.
        assert_eq!(found, [(2, "first"), (3, "second")]);
        of(3).prune(Step(3));
        assert_eq!(of(3).files().count(), 2, "step 4 has no checkpoint yet");
    }
}
