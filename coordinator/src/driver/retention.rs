//! Which old checkpoints go.

use std::{collections::BTreeSet, path::PathBuf};

use medevo_core::api::{CheckpointRef, RunSpec, StageKind};

/// Directories that may be deleted: all but the newest `keep`, the last of every stage, and every
/// directory that some standing checkpoint names as its KL reference. `published` is oldest first; its
/// last entry is the pointer, which always stays.
#[must_use]
pub fn expired(published: &[CheckpointRef], spec: &RunSpec, keep: usize) -> Vec<PathBuf> {
    let newest = published.len().saturating_sub(keep.max(1));
    let references: BTreeSet<&PathBuf> =
        published.iter().filter_map(|checkpoint| checkpoint.reference.as_ref()).collect();
    published[..newest]
        .iter()
        .filter(|checkpoint| {
            !ends_a_stage(checkpoint, spec) && !references.contains(&checkpoint.dir)
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
