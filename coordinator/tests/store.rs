//! What a coordinator that takes a run over finds in its store.

use std::{path::Path, sync::Arc, time::Duration};

use medevo_coord::{
    leadership::campaign,
    store::{Recovery, recover},
};
use medevo_core::api::{CheckpointRef, Outcome, Position, Record};
use medevo_store::{Memory, Store, StoreError};
use medevo_types::{Attempt, Digest, Generation, PolicyVersion, Step, Term};

fn commit(step: u64) -> Record {
    Record::Commit {
        step: Step(step),
        attempt: Attempt(1),
        generation: Generation(1),
        policy: PolicyVersion(step),
        gradient: Digest("g".into()),
        left: None,
    }
}

/// Another coordinator takes the run over, once the lease of the one before has run out.
fn take_over(store: &Arc<Memory>, checkpoints: &Path) -> Recovery {
    let ttl = Duration::from_secs(10);
    store.advance(ttl * 2);
    let store: Arc<dyn Store> = store.clone();
    let lead = campaign(&store, "127.0.0.1:7000", ttl).expect("a store that works");
    recover(&lead.expect("nobody leads"), checkpoints).expect("records that can be read")
}

#[test]
fn inv_8_a_coordinator_that_was_taken_over_records_nothing() {
    let store = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = take_over(&store, dir.path());
    first.journal.append(&[commit(1)]).expect("a write");
    let mut second = take_over(&store, dir.path());
    assert!(second.recovered.term > first.recovered.term);
    let late = first.journal.append(&[commit(2)]);
    assert!(matches!(late, Err(StoreError::GuardFailed { .. })));
    second.journal.append(&[commit(2)]).expect("a write");
    let third = take_over(&store, dir.path());
    assert_eq!(third.recovered.committed, Step(2));
    assert_eq!(third.recovered.term, Term(3));
}

#[test]
fn recovery_adds_the_records_up() {
    let store = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = take_over(&store, dir.path());
    let records = [
        Record::Generation(Generation(1)),
        commit(1),
        commit(2),
        Record::Generation(Generation(4)),
        commit(3),
        Record::Rollback { step: Step(1) },
        Record::Generation(Generation(5)),
        commit(2),
        Record::Finished(Outcome::Done),
    ];
    for record in &records {
        first.journal.append(std::slice::from_ref(record)).expect("a write");
    }
    let found = take_over(&store, dir.path());
    assert_eq!(found.recovered.generation, Generation(5), "INV-3: no generation may come again");
    assert_eq!(found.recovered.committed, Step(2));
    assert_eq!(found.recovered.reached, Step(3), "its checkpoint's directory may exist");
    assert_eq!(found.outcome, Some(Outcome::Done));
    assert_eq!(found.recovered.checkpoint, None);
}

#[test]
fn inv_5_a_checkpoint_that_is_not_whole_is_passed_over_loudly() {
    let store = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = take_over(&store, dir.path());
    let absent = CheckpointRef {
        dir: dir.path().join("step-000002"),
        step: Step(2),
        policy: PolicyVersion(2),
        position: Position { stage: 0, done: 2, extra: 0 },
        holding: Digest("h".into()),
        reference: None,
        untrained: false,
    };
    first.journal.append(&[commit(1), commit(2), Record::Checkpoint(absent)]).expect("a write");
    let found = take_over(&store, dir.path());
    assert_eq!(found.recovered.checkpoint, None);
    assert_eq!(found.passed_over.len(), 1);
    assert!(found.passed_over[0].contains("step-000002"), "{}", found.passed_over[0]);
}
