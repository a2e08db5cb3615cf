//! Taking a run over: bump the term, read the records back, find the newest checkpoint that is whole.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use medevo_common::manifest::Manifest;
use medevo_core::api::{CheckpointRef, Ledger, Outcome, Recovered};
use medevo_types::Term;

use super::{
    Guard, Journal, Put, Store, StoreError,
    records::{TERM, decode_term, encode_term, read_all},
};

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
    /// Where this term's records go.
    pub journal: Journal,
}

/// Takes the run over: writes a term larger than any before, then reads what the records say. A checkpoint
/// whose manifest or files are not good is passed over for the one before it, with a sentence and an error
/// in the log (INV-5); the core then rolls back to it on record.
///
/// # Errors
/// [`StoreError`] when the store fails or another coordinator takes over at the same moment.
pub fn recover(store: Arc<dyn Store>, checkpoints: &Path) -> Result<Recovery, StoreError> {
    let held = store.get(TERM)?;
    let before = held.as_deref().map_or(Ok(Term::default()), decode_term)?;
    let term = before.next();
    let put = Put { key: TERM.into(), value: encode_term(term) };
    store.transact(&Guard { key: TERM.into(), expected: held }, &[put])?;

    let mut ledger = ledger(store.as_ref())?;
    let mut passed_over = Vec::new();
    ledger.relocate(|dir| rebase(dir, checkpoints));
    let standing = &mut ledger.checkpoints;
    while let Some(newest) = standing.last() {
        let Err(problem) = whole(newest) else { break };
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

/// Where a recorded directory lies now: a run directory that was moved takes its checkpoints along.
fn rebase(recorded: &Path, checkpoints: &Path) -> PathBuf {
    match recorded.file_name() {
        Some(name) if !recorded.exists() && checkpoints.join(name).exists() => {
            checkpoints.join(name)
        }
        _ => recorded.to_owned(),
    }
}

/// Whether the checkpoint's files are all there and match, its manifest is of the same step, and the KL
/// reference of its stage still exists.
fn whole(checkpoint: &CheckpointRef) -> Result<(), String> {
    let manifest = Manifest::read(&checkpoint.dir).map_err(|problem| problem.to_string())?;
    manifest.verify(&checkpoint.dir).map_err(|problem| problem.to_string())?;
    if manifest.step != checkpoint.step {
        return Err(format!("its manifest is of step {}, not {}", manifest.step, checkpoint.step));
    }
    match &checkpoint.reference {
        Some(reference) if !reference.is_dir() => {
            Err(format!("the KL reference of its stage, {}, is gone", reference.display()))
        }
        _ => Ok(()),
    }
}
