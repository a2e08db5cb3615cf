//! Which old checkpoints go.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medevo_common::config::{BestIs, CheckpointSection};
use medevo_core::api::{CheckpointRef, RunSpec, StageKind};
use medevo_types::Step;

/// What stays, besides what has to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many; at least one.
    pub keep: usize,
    /// Those whose step is a multiple of it; 0 for none.
    pub keep_every: u64,
    /// The best so many.
    pub keep_best: usize,
    /// Which end of a score is its best.
    pub best_is: BestIs,
}

impl Retention {
    /// Of the run directory.
    #[must_use]
    pub fn of(section: &CheckpointSection) -> Self {
        Self {
            keep: section.keep,
            keep_every: section.keep_every,
            keep_best: section.keep_best,
            best_is: section.best_is,
        }
    }

    /// Of the copies.
    #[must_use]
    pub fn of_copies(section: &CheckpointSection) -> Self {
        Self { keep: section.copy_keep.unwrap_or(section.keep), ..Self::of(section) }
    }

    /// Checkpoints that have a score, the best first; of equal ones the newer first.
    #[must_use]
    pub fn ranking<'a>(
        &self,
        published: &'a [CheckpointRef],
        scores: &BTreeMap<Step, f64>,
    ) -> Vec<(&'a CheckpointRef, f64)> {
        let score = |checkpoint: &CheckpointRef| scores.get(&checkpoint.step).copied();
        let mut ranking: Vec<_> = published
            .iter()
            .rev()
            .filter_map(|checkpoint| Some((checkpoint, score(checkpoint)?)))
            .filter(|(_, score)| score.is_finite())
            .collect();
        // Stable: the newer of two equals stays before the other.
        ranking.sort_by(|(_, a), (_, b)| {
            let rising = a.partial_cmp(b).unwrap_or(Ordering::Equal);
            match self.best_is {
                BestIs::Max => rising.reverse(),
                BestIs::Min => rising,
            }
        });
        ranking
    }
}

/// Directories that may be deleted: all but those that `rule` keeps, the last of every stage, and every
/// directory that some standing checkpoint names as its KL reference. `published` is oldest first; its
/// last entry is the pointer, which always stays. `scores` are by step.
#[must_use]
pub fn expired(
    published: &[CheckpointRef],
    spec: &RunSpec,
    rule: &Retention,
    scores: &BTreeMap<Step, f64>,
) -> Vec<PathBuf> {
    let newest = published.len().saturating_sub(rule.keep.max(1));
    let references: BTreeSet<&PathBuf> =
        published.iter().filter_map(|checkpoint| checkpoint.reference.as_ref()).collect();
    let ranking = rule.ranking(published, scores);
    let best: BTreeSet<&PathBuf> =
        ranking.iter().take(rule.keep_best).map(|(checkpoint, _)| &checkpoint.dir).collect();
    let for_good = |step: Step| rule.keep_every > 0 && step.0.is_multiple_of(rule.keep_every);
    published[..newest]
        .iter()
        .filter(|checkpoint| {
            !ends_a_stage(checkpoint, spec)
                && !references.contains(&checkpoint.dir)
                && !best.contains(&checkpoint.dir)
                && !for_good(checkpoint.step)
        })
        .map(|checkpoint| checkpoint.dir.clone())
        .collect()
}

/// A stage's last checkpoint points at the stage's end or at the next stage's start.
fn ends_a_stage(checkpoint: &CheckpointRef, spec: &RunSpec) -> bool {
    let position = checkpoint.position;
    let steps = spec.stages.get(position.stage).map(|stage| match stage.kind {
        StageKind::Sft { steps, .. } | StageKind::Rl { steps, .. } => steps,
        StageKind::Evaluate { .. } => 0,
    });
    position.done == 0 || steps.is_none_or(|steps| position.done >= steps)
}
