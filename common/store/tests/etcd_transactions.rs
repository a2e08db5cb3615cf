//! A transaction is made once, whatever happens to its copies and its answer.

mod wire;

use std::{
    thread,
    time::{Duration, Instant},
};

use medevo_store::{Etcd, Guard, Settings, Store, StoreError, Write};
use medevo_tests::etcd::Etcd as Cluster;
use wire::Wire;

fn open(endpoint: String) -> Etcd {
    let mut settings = Settings::plain(vec![endpoint], "/medevo", "r");
    settings.patience_s = 30.0;
    Etcd::open(&settings).expect("a store")
}

fn guard(key: &str, expected: &str) -> Guard {
    Guard { key: key.into(), expected: Some(expected.into()) }
}

fn until_it_holds(store: &Etcd, key: &str, value: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.get(key).expect("a read").as_deref() != Some(value.as_bytes()) {
        assert!(Instant::now() < deadline, "{key} did not become {value}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_transaction_whose_answer_is_lost_is_made_once_and_reported_as_made() {
    let cluster = Cluster::start(1);
    let wire = Wire::to(&cluster.endpoint(0));
    let (store, direct) = (open(wire.endpoint()), open(cluster.endpoint(0)));
    store.transact(&[], &[Write::put("counter", "0")]).expect("a write");
    for n in 0..10 {
        wire.lose_the_answer_to("counter");
        thread::scope(|scope| {
            scope.spawn(|| {
                until_it_holds(&direct, "counter", &(n + 1).to_string());
                wire.open();
            });
            let (before, after) = (n.to_string(), (n + 1).to_string());
            let made =
                store.transact(&[guard("counter", &before)], &[Write::put("counter", after)]);
            made.expect("it was made, although its guard no longer holds");
        });
    }
    assert_eq!(direct.get("counter").expect("a read"), Some(b"10".to_vec()));
}

#[test]
fn it_is_known_as_made_even_if_its_value_was_changed_since_and_refused_if_it_was_not() {
    let cluster = Cluster::start(1);
    let wire = Wire::to(&cluster.endpoint(0));
    let (store, direct) = (open(wire.endpoint()), open(cluster.endpoint(0)));
    store.transact(&[], &[Write::put("leader", "none")]).expect("a write");
    wire.lose_the_answer_to("leader");
    thread::scope(|scope| {
        scope.spawn(|| {
            until_it_holds(&direct, "leader", "me");
            direct
                .transact(&[guard("leader", "me")], &[Write::put("leader", "you")])
                .expect("a write");
            wire.open();
        });
        store
            .transact(&[guard("leader", "none")], &[Write::put("leader", "me")])
            .expect("it was made");
    });
    assert_eq!(direct.get("leader").expect("a read"), Some(b"you".to_vec()), "and not made again");

    // The same loss, but another has written the same value first: nobody may take that for his own.
    direct.transact(&[], &[Write::put("leader", "us")]).expect("a write");
    wire.lose_the_answer_to("leader");
    let refused = thread::scope(|scope| {
        scope.spawn(|| wire.open());
        store.transact(&[guard("leader", "none")], &[Write::put("leader", "us")])
    });
    assert!(matches!(refused, Err(StoreError::GuardFailed { key }) if key == "leader"));
}

#[test]
fn a_copy_that_arrives_late_changes_nothing() {
    let cluster = Cluster::start(1);
    let wire = Wire::to(&cluster.endpoint(0));
    let (store, direct) = (open(wire.endpoint()), open(cluster.endpoint(0)));
    store.transact(&[], &[Write::put("term", "1")]).expect("a write");
    wire.hold_the_request_with("pointer");
    let under = [guard("term", "1")];
    store.transact(&under, &[Write::put("pointer", "step-1")]).expect("the second copy is made");
    store.transact(&under, &[Write::put("pointer", "step-2")]).expect("a write");
    wire.deliver();
    assert_eq!(direct.get("pointer").expect("a read"), Some(b"step-2".to_vec()));
    store.transact(&under, &[Write::put("pointer", "step-3")]).expect("it goes on");
    assert_eq!(direct.get("pointer").expect("a read"), Some(b"step-3".to_vec()));
}
