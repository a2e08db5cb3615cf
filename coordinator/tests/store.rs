//! One conformance suite for every store, and what only the embedded one promises.

use std::sync::Arc;

use medevo_coord::store::{Embedded, Guard, Memory, Put, Store, StoreError, recover};
use medevo_core::api::{CheckpointRef, Outcome, Position, Record};
use medevo_types::{Attempt, Digest, Generation, PolicyVersion, Step, Term};

fn put(key: &str, value: &str) -> Put {
    Put { key: key.into(), value: value.into() }
}

fn guard(key: &str, expected: Option<&str>) -> Guard {
    Guard { key: key.into(), expected: expected.map(Into::into) }
}

/// What every store promises.
fn conforms(store: &dyn Store) {
    assert_eq!(store.get("a").expect("a read"), None);
    store.transact(&guard("term", None), &[put("term", "1"), put("a", "x")]).expect("a write");
    assert_eq!(store.get("a").expect("a read"), Some(b"x".to_vec()));

    // A guard that does not hold writes nothing, not even in part.
    for wrong in [guard("term", None), guard("term", Some("2")), guard("absent", Some("1"))] {
        let refused = store.transact(&wrong, &[put("a", "y"), put("b", "y")]);
        assert!(matches!(refused, Err(StoreError::GuardFailed { .. })), "{wrong:?} must not hold");
    }
    assert_eq!(store.get("a").expect("a read"), Some(b"x".to_vec()));
    assert_eq!(store.get("b").expect("a read"), None);

    // The guarded key can change in the same transaction: that is how a term is taken over.
    store.transact(&guard("term", Some("1")), &[put("term", "2")]).expect("a write");
    assert!(store.transact(&guard("term", Some("1")), &[put("a", "late")]).is_err(), "INV-8");

    let records =
        [put("r/10", "b"), put("r/02", "a"), put("r/2", "c"), put("s", "no"), put("r", "no")];
    store.transact(&guard("term", Some("2")), &records).expect("a write");
    let listed = store.list("r/").expect("a list");
    let keys: Vec<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["r/02", "r/10", "r/2"], "byte order, and nothing else");
    assert!(store.list("zzz").expect("a list").is_empty());
}

#[test]
fn memory_conforms() {
    conforms(&Memory::default());
}

#[test]
fn embedded_conforms_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    conforms(&Embedded::open(dir.path()).expect("a new store"));
    let again = Embedded::open(dir.path()).expect("the same store");
    assert_eq!(again.get("term").expect("a read"), Some(b"2".to_vec()));
}

#[test]
fn a_second_coordinator_is_refused_with_a_sentence_that_names_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let _first = Embedded::open(dir.path()).expect("a new store");
    let second = Embedded::open(dir.path()).expect_err("the store is in use").to_string();
    assert!(second.contains("another coordinator is already running this run"), "{second}");
    assert!(second.contains(&dir.path().display().to_string()), "{second}");
}

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

#[test]
fn inv_8_a_coordinator_that_was_taken_over_records_nothing() {
    let store = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = recover(store.clone(), dir.path()).expect("a first term");
    first.journal.append(&[commit(1)]).expect("a write");
    let mut second = recover(store.clone(), dir.path()).expect("a second term");
    assert!(second.recovered.term > first.recovered.term);
    let late = first.journal.append(&[commit(2)]);
    assert!(matches!(late, Err(StoreError::GuardFailed { .. })));
    second.journal.append(&[commit(2)]).expect("a write");
    let third = recover(store, dir.path()).expect("a third term");
    assert_eq!(third.recovered.committed, Step(2));
    assert_eq!(third.recovered.term, Term(3));
}

#[test]
fn recovery_adds_the_records_up() {
    let store = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = recover(store.clone(), dir.path()).expect("a term");
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
    let found = recover(store, dir.path()).expect("a term");
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
    let mut first = recover(store.clone(), dir.path()).expect("a term");
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
    let found = recover(store, dir.path()).expect("a term");
    assert_eq!(found.recovered.checkpoint, None);
    assert_eq!(found.passed_over.len(), 1);
    assert!(found.passed_over[0].contains("step-000002"), "{}", found.passed_over[0]);
}
