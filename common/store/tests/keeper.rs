//! What holders of a lease may rely on.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use medevo_store::{Guard, Keeper, LeaseId, Memory, Store, StoreError, Write};

const PATIENCE: Duration = Duration::from_secs(30);

fn register(lease: LeaseId) -> Vec<Write> {
    vec![Write::leased("workers/w1", "1", lease)]
}

fn start(store: &Memory, ttl: Duration) -> (Keeper, mpsc::Receiver<String>) {
    let (lost, losses) = mpsc::channel();
    let tell = move |reason: &str| lost.send(reason.to_owned()).expect("the test listens");
    let keeper = Keeper::start(Arc::new(store.clone()), ttl, &[], register, tell);
    (keeper.expect("a lease"), losses)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_kept_lease_outlives_its_time_and_goes_at_once_when_stopped() {
    let store = Memory::default();
    let (keeper, losses) = start(&store, Duration::from_millis(500));
    let first = keeper.valid_until();
    until("three renewals", || keeper.valid_until() >= first + Duration::from_secs(1));
    assert!(store.get("workers/w1").expect("a read").is_some());
    assert_eq!(keeper.lost(), None);
    keeper.stop().expect("an answer");
    assert_eq!(store.get("workers/w1").expect("a read"), None, "revoked, not run out");
    assert!(losses.recv().is_err(), "a lease that was given back is not lost");
}

#[test]
fn an_outage_shorter_than_the_lease_loses_nothing() {
    let store = Memory::default();
    let (keeper, losses) = start(&store, Duration::from_secs(8));
    let first = keeper.valid_until();
    store.be_unavailable(true);
    // Past the first renewal, at half of the time.
    until("one renewal in vain", || Instant::now() > first - Duration::from_secs(3));
    assert_eq!(keeper.valid_until(), first, "nothing was renewed while the store was away");
    store.be_unavailable(false);
    until("a renewal", || keeper.valid_until() > first);
    assert_eq!(keeper.lost(), None);
    assert!(store.get("workers/w1").expect("a read").is_some());
    assert!(losses.try_recv().is_err());
}

#[test]
fn an_outage_longer_than_the_lease_loses_it_for_good_and_in_time() {
    let store = Memory::default();
    let (keeper, losses) = start(&store, Duration::from_secs(1));
    store.be_unavailable(true);
    let valid_until = keeper.valid_until();
    let reason = losses.recv_timeout(PATIENCE).expect("a loss");
    assert!(Instant::now() >= valid_until, "never before its time");
    assert!(reason.contains("not renewed in time"), "{reason}");
    store.be_unavailable(false);
    assert!(keeper.lost().is_some());
    until("the key goes", || store.get("workers/w1").expect("a read").is_none());
    assert_eq!(keeper.valid_until(), valid_until, "a lost lease is not taken again");
}

#[test]
fn a_lease_that_the_store_has_ended_is_reported() {
    let store = Memory::default();
    let (_keeper, losses) = start(&store, Duration::from_secs(2));
    // As if this process had been stopped for a minute.
    store.advance(Duration::from_secs(60));
    let reason = losses.recv_timeout(PATIENCE).expect("a loss");
    assert!(reason.contains("knows lease 1 no longer"), "{reason}");
}

#[test]
fn a_guard_that_does_not_hold_registers_nothing() {
    let store = Memory::default();
    store.transact(&[], &[Write::put("leader", "another")]).expect("a write");
    let guard = Guard { key: "leader".into(), expected: None };
    let store: Arc<dyn Store> = Arc::new(store);
    let refused = Keeper::start(store.clone(), Duration::from_secs(60), &[guard], register, |_| ());
    assert!(matches!(refused, Err(StoreError::GuardFailed { .. })));
    assert_eq!(store.get("workers/w1").expect("a read"), None);
    let unknown = store.renew(LeaseId(1));
    assert!(matches!(unknown, Err(StoreError::LeaseLost { .. })), "its lease was given back");
}
