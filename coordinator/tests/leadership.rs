//! One coordinator leads; another takes over when its lease is gone; the first one then does nothing (INV-8).

mod fleet;

use std::{sync::Arc, time::Duration};

use fleet::Run;
use medevo_coord::leadership::{Lapse, campaign, leader};
use medevo_core::api::Outcome;
use medevo_store::{Memory, Store};
use medevo_types::{
    Incarnation, WorkerTag,
    messages::{JoinRefused, Rejection},
};
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(10);

fn store() -> (Memory, Arc<dyn Store>) {
    let memory = Memory::default();
    (memory.clone(), Arc::new(memory))
}

#[test]
fn one_leads_and_says_where_it_is_and_the_next_has_a_larger_term() {
    let (_, store) = store();
    let first = campaign(&store, "10.0.0.1:7000", TTL).expect("a store").expect("nobody leads");
    let Ok(Err(Some(seat))) = campaign(&store, "10.0.0.2:7000", TTL) else {
        panic!("the lead is taken")
    };
    assert_eq!((seat.address.as_str(), seat.term), ("10.0.0.1:7000", first.term()));
    // Given up on purpose: nobody waits for a lease.
    drop(first);
    let second = campaign(&store, "10.0.0.2:7000", TTL).expect("a store").expect("nobody leads");
    assert!(second.term() > seat.term);
    let found = leader(store.as_ref()).expect("a store").expect("it says so");
    assert_eq!(found.address, "10.0.0.2:7000");
}

#[test]
fn a_lapsed_lead_is_taken_up_again_unless_somebody_else_has_it() {
    let (memory, store) = store();
    let ttl = Duration::from_millis(200);
    let mut first = campaign(&store, "a:1", ttl).expect("a store").expect("nobody leads");
    memory.be_unavailable(true);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while first.holds() {
        assert!(std::time::Instant::now() < until, "the lease is not renewed, so it runs out");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(first.regain(), Err(Lapse::Unknown(_))), "the store does not say");
    memory.be_unavailable(false);
    first.regain().expect("nobody has taken over");
    assert!(first.holds());
    assert_eq!(leader(store.as_ref()).expect("a store").expect("it leads").term, first.term());

    memory.be_unavailable(true);
    while first.holds() {
        std::thread::sleep(Duration::from_millis(10));
    }
    memory.advance(TTL);
    memory.be_unavailable(false);
    let second = campaign(&store, "b:1", TTL).expect("a store").expect("the lease is over");
    assert!(matches!(first.regain(), Err(Lapse::Deposed)));
    assert!(second.holds() && !first.holds());
}

/// The old leader was stopped for longer than its lease; the new one leads. Whoever still asks the old one is sent to
/// find the leader, and neither the store nor the run directory hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_8_a_deposed_coordinator_says_nothing_and_sends_nobody_away() {
    let run = Run::new(fleet::THREE_STEPS);
    let (old, task) = run.coordinator();
    let tag = WorkerTag { worker: "w0".into(), incarnation: Incarnation(1) };
    old.join(tag.clone(), "cpu".into(), "127.0.0.1".into()).await.expect("it leads");
    run.store.advance(TTL);
    let lead = run.lead();
    let records = run.store.list("records/").expect("a store").entries;
    let events = std::fs::read(run.dir.events_file()).expect("events");

    let refused = async { while old.next(tag.clone()).await != Err(Rejection::NotLeader) {} };
    timeout(Duration::from_secs(20), refused).await.expect("it finds out at its next record");
    assert_eq!(old.heartbeat(tag.clone()).await, Err(Rejection::NotLeader));
    let joined = old.join(tag, "cpu".into(), "127.0.0.1".into()).await;
    assert_eq!(joined, Err(JoinRefused::NotLeader));
    assert!(old.deposed());
    assert!(matches!(*old.over().borrow(), Some(Outcome::Failed { .. })));
    old.shutdown().await;
    timeout(Duration::from_secs(10), task).await.expect("it leaves").expect("no panic");
    assert_eq!(run.store.list("records/").expect("a store").entries, records);
    assert_eq!(std::fs::read(run.dir.events_file()).expect("events"), events);
    assert!(lead.holds());
}
