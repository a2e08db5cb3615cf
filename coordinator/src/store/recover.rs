//! Taking a run over: read the records back, find the newest checkpoint that is whole.

use std::path::{Path, PathBuf};

use medevo_common::manifest::Manifest;
use medevo_core::api::{CheckpointRef, Ledger, Outcome, Recovered};
use medevo_store::{Store, StoreError};

use super::{Journal, records::read_all};
use crate::leadership::Lead;

/// What a coordinator that takes over needs to know.
pub struct Recovery {
    /// For the core.
    pub recovered: Recovered,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// Published checkpoints that still stand, oldest first (the last is the pointer).
    pub checkpoints: Vec<CheckpointRef>,
    /// Sentences about checkpoints that were passed over because they are not whole.
    pub passed_over: Vec<String>,
    /// Sentences about checkpoints that were not whole and are again.
    pub mended: Vec<String>,
    /// Where this term's records go.
    pub journal: Journal,
}

/// Reads what the records say, for the coordinator that has the lead. A checkpoint whose manifest or files are not
/// good is passed over for the one before it, with a sentence and an error in the log (INV-5); the core then rolls back
/// to it on record.
///
/// # Errors
/// [`StoreError`] when the store fails or holds what cannot be read.
pub fn recover(lead: &Lead, checkpoints: &Path) -> Result<Recovery, StoreError> {
    recover_with(lead, checkpoints, &|_| None)
}

/// Tries to put a checkpoint that is not whole back, from elsewhere; says how, or why it cannot. None where there is
/// no elsewhere.
pub type Mend<'a> = dyn Fn(&CheckpointRef) -> Option<Result<String, String>> + 'a;

/// As [`recover`], but a checkpoint that is not whole is given to `mend` before it is passed over.
///
/// # Errors
/// As [`recover`].
pub fn recover_with(
    lead: &Lead,
    checkpoints: &Path,
    mend: &Mend<'_>,
) -> Result<Recovery, StoreError> {
    let (store, term) = (lead.store().clone(), lead.term());
    let mut ledger = ledger(store.as_ref())?;
    let (mut passed_over, mut mended) = (Vec::new(), Vec::new());
    ledger.relocate(|dir| rebase(dir, checkpoints));
    let standing = &mut ledger.checkpoints;
    while let Some(newest) = standing.last() {
        let Err(mut problem) = whole(newest) else { break };
        match mend(newest) {
            None => {}
            Some(Err(why)) => problem = format!("{problem}; nor does a copy help: {why}"),
            Some(Ok(how)) => match whole(newest) {
                Ok(()) => {
                    let dir = newest.dir.display();
                    let sentence = format!("checkpoint {dir} was not whole ({problem}); {how}");
                    tracing::warn!("{sentence}");
                    mended.push(sentence);
                    break;
                }
                Err(still) => problem = format!("{problem}; {how}, but then: {still}"),
            },
        }
        let instead = match standing.len() {
            1 => "there is none before it: the run starts again from the model".to_owned(),
            n => format!("falling back to {}", standing[n - 2].dir.display()),
        };
        let sentence =
            format!("checkpoint {} is not whole ({problem}); {instead}", newest.dir.display());
        tracing::error!("{sentence}");
        passed_over.push(sentence);
        standing.pop();
    }
    let recovered = ledger.recovered(term);
    let journal = Journal::new(store, term);
    Ok(Recovery {
        recovered,
        outcome: ledger.outcome,
        checkpoints: ledger.checkpoints,
        passed_over,
        mended,
        journal,
    })
}

/// How the run of this store ended, if it has. Changes nothing.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub fn outcome(store: &dyn Store) -> Result<Option<Outcome>, StoreError> {
    Ok(ledger(store)?.outcome)
}

fn ledger(store: &dyn Store) -> Result<Ledger, StoreError> {
    let mut ledger = Ledger::default();
    for record in read_all(store)? {
        ledger.replay(record);
    }
    Ok(ledger)
}

/// Where a recorded directory lies now, or would: a run directory that was moved takes its checkpoints along.
fn rebase(recorded: &Path, checkpoints: &Path) -> PathBuf {
    match recorded.file_name() {
        Some(name) if !recorded.exists() && is_checkpoint(recorded) => checkpoints.join(name),
        _ => recorded.to_owned(),
    }
}

/// Whether a directory is a checkpoint's by its name. A KL reference may be the starting model instead.
#[must_use]
pub fn is_checkpoint(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"))
}

/// Whether a manifest is that of a recorded checkpoint, and not of another run or another step.
///
/// # Errors
/// A sentence that says how they differ.
pub fn matches(checkpoint: &CheckpointRef, manifest: &Manifest) -> Result<(), String> {
    if manifest.step != checkpoint.step {
        return Err(format!("its manifest is of step {}, not {}", manifest.step, checkpoint.step));
    }
    if manifest.policy != checkpoint.policy || manifest.holding != checkpoint.holding {
        return Err(format!(
            "its manifest is of other weights than those on record: it was written by a run {:?}",
            manifest.run_id
        ));
    }
    Ok(())
}

/// Whether the checkpoint's files are all there and match, its manifest is the recorded one, and the KL
/// reference of its stage is whole, too.
fn whole(checkpoint: &CheckpointRef) -> Result<(), String> {
    let manifest = Manifest::read(&checkpoint.dir).map_err(|problem| problem.to_string())?;
    manifest.verify(&checkpoint.dir).map_err(|problem| problem.to_string())?;
    matches(checkpoint, &manifest)?;
    let Some(reference) = &checkpoint.reference else { return Ok(()) };
    let of_its_stage = |problem: String| format!("the KL reference of its stage: {problem}");
    if !is_checkpoint(reference) {
        let gone = || of_its_stage(format!("{} is gone", reference.display()));
        return if reference.is_dir() { Ok(()) } else { Err(gone()) };
    }
    let sound = Manifest::read(reference).and_then(|manifest| manifest.verify(reference));
    sound.map_err(|problem| of_its_stage(problem.to_string()))
}
