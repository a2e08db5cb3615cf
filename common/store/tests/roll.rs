//! Following a prefix: nothing is missed, and nobody is declared gone on a rumour.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use medevo_store::{
    Change, Changes, Embedded, Guard, LeaseId, Memory, Roll, Snapshot, Store, StoreError, Watch,
    Write,
};

const SOON: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
const RARELY: Duration = Duration::from_secs(3600);

fn put(store: &dyn Store, key: &str, value: &str) {
    store.transact(&[], &[Write::put(key, value)]).expect("a write");
}

fn delete(store: &dyn Store, key: &str) {
    store.transact(&[], &[Write::delete(key)]).expect("a write");
}

fn changed(changes: &Changes) -> Vec<&str> {
    changes.changed.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn joins_changes_and_losses_are_told_once() {
    let store = Memory::default();
    put(&store, "w/1", "a");
    put(&store, "x", "no");
    let mut roll = Roll::new(Arc::new(store.clone()), "w/", RARELY);
    assert_eq!(changed(&roll.next(SOON).expect("an answer")), ["w/1"]);
    assert!(roll.next(SOON).expect("an answer").is_empty());
    put(&store, "w/2", "a");
    assert_eq!(changed(&roll.next(PATIENCE).expect("an answer")), ["w/2"]);
    put(&store, "w/1", "b");
    assert_eq!(changed(&roll.next(PATIENCE).expect("an answer")), ["w/1"]);
    delete(&store, "w/2");
    assert_eq!(roll.next(PATIENCE).expect("an answer").gone, ["w/2"]);
    assert_eq!(roll.known().keys().collect::<Vec<_>>(), ["w/1"]);
    let lease = store.grant(Duration::from_secs(60)).expect("a lease");
    store.transact(&[], &[Write::leased("w/3", "a", lease)]).expect("a write");
    assert_eq!(changed(&roll.next(PATIENCE).expect("an answer")), ["w/3"]);
    store.advance(Duration::from_secs(61));
    assert_eq!(roll.next(PATIENCE).expect("an answer").gone, ["w/3"], "a lease that ran out");
}

#[test]
fn a_broken_watch_loses_nothing() {
    let store = Memory::default();
    put(&store, "w/1", "a");
    put(&store, "w/2", "a");
    let mut roll = Roll::new(Arc::new(store.clone()), "w/", RARELY);
    roll.next(SOON).expect("an answer");
    assert!(roll.next(SOON).expect("an answer").is_empty(), "now it watches");
    for breaking in [Memory::break_watches, Memory::compact] {
        put(&store, "w/1", "b");
        delete(&store, "w/2");
        put(&store, "w/3", "a");
        breaking(&store);
        let missed = roll.next(PATIENCE).expect("an answer");
        assert_eq!(
            (changed(&missed), missed.gone.as_slice()),
            (vec!["w/1", "w/3"], &["w/2".to_owned()][..])
        );
        put(&store, "w/1", "a");
        put(&store, "w/2", "a");
        delete(&store, "w/3");
        let back = roll.next(PATIENCE).expect("an answer");
        assert_eq!(back.gone, ["w/3"], "and it watches again");
    }
}

#[test]
fn a_watcher_that_lags_behind_in_the_embedded_store_takes_a_snapshot() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Embedded::open(dir.path()).expect("a store"));
    put(&*store, "w/1", "a");
    let mut roll = Roll::new(store.clone(), "w/", RARELY);
    roll.next(SOON).expect("an answer");
    assert!(roll.next(SOON).expect("an answer").is_empty(), "now it watches");
    delete(&*store, "w/1");
    let lease = store.grant(Duration::from_secs(600)).expect("a lease");
    for round in 0..50 {
        let writes: Vec<Write> =
            (0..100).map(|i| Write::leased(format!("x/{i}"), format!("{round}"), lease)).collect();
        store.transact(&[], &writes).expect("a write");
    }
    assert_eq!(roll.next(PATIENCE).expect("an answer").gone, ["w/1"]);
}

#[test]
fn a_store_that_is_away_makes_nobody_gone() {
    let store = Memory::default();
    put(&store, "w/1", "a");
    let mut roll = Roll::new(Arc::new(store.clone()), "w/", SOON);
    roll.next(SOON).expect("an answer");
    store.be_unavailable(true);
    for _ in 0..3 {
        let unknown = loop {
            match roll.next(SOON) {
                Ok(changes) => assert!(changes.is_empty(), "{changes:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(unknown, StoreError::Unavailable { .. }), "{unknown}");
        assert_eq!(roll.known().len(), 1);
    }
    store.be_unavailable(false);
    assert!(roll.next(SOON).expect("an answer").is_empty(), "it was there all the time");
}

#[test]
fn a_silent_watch_is_checked_by_looking() {
    // This store's watch says nothing at all, as one does whose member was cut off.
    struct Deaf(Memory);
    struct Silent;
    impl Watch for Silent {
        fn wait(&mut self, timeout: Duration) -> Result<Vec<Change>, StoreError> {
            std::thread::sleep(timeout);
            Ok(Vec::new())
        }
    }
    impl Store for Deaf {
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(key)
        }
        fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
            self.0.list(prefix)
        }
        fn transact(&self, guards: &[Guard], writes: &[Write]) -> Result<(), StoreError> {
            self.0.transact(guards, writes)
        }
        fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
            self.0.grant(ttl)
        }
        fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
            self.0.renew(lease)
        }
        fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
            self.0.revoke(lease)
        }
        fn watch(&self, _: &str, _: u64) -> Result<Box<dyn Watch>, StoreError> {
            Ok(Box::new(Silent))
        }
    }
    let store = Memory::default();
    let mut roll = Roll::new(Arc::new(Deaf(store.clone())), "w/", Duration::from_millis(100));
    assert!(roll.next(SOON).expect("an answer").is_empty());
    put(&store, "w/1", "a");
    let asked = Instant::now();
    assert_eq!(changed(&roll.next(PATIENCE).expect("an answer")), ["w/1"]);
    assert!(asked.elapsed() < PATIENCE / 2);
}
