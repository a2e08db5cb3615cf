//! Three real members: killed, frozen, compacted. What was acknowledged stays, and nothing stale is read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use medevo_store::{Etcd, Keeper, Roll, Settings, Store, StoreError, Write};
use medevo_tests::etcd::Etcd as Cluster;

const PATIENCE: Duration = Duration::from_secs(60);

/// A store that asks these members, in this order.
fn open(endpoints: Vec<String>) -> Etcd {
    let mut settings = Settings::plain(endpoints, "/medevo", "r");
    settings.patience_s = 30.0;
    Etcd::open(&settings).expect("a store")
}

/// All members, `first` first.
fn from(cluster: &Cluster, first: usize) -> Vec<String> {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(first);
    endpoints
}

#[test]
fn a_killed_leader_costs_seconds_and_no_acknowledged_write() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let store = open(from(&cluster, leader));
    let write = |i: u32| {
        let started = Instant::now();
        store.transact(&[], &[Write::put(format!("n/{i:04}"), "x")]).expect("a write");
        started.elapsed()
    };
    (0..50).for_each(|i| _ = write(i));
    cluster.kill(leader);
    let gap = write(50);
    assert!(gap < Duration::from_secs(15), "writes went on after {gap:?}");
    println!("writes went on {:.2} s after the leader was killed", gap.as_secs_f64());
    (51..100).for_each(|i| _ = write(i));
    cluster.restart(leader);
    let alone = open(vec![cluster.endpoint(leader)]);
    let there: Vec<String> =
        alone.list("n/").expect("a list").entries.into_iter().map(|(key, _)| key).collect();
    let acknowledged: Vec<String> = (0..100).map(|i| format!("n/{i:04}")).collect();
    assert_eq!(there, acknowledged, "as the one that was dead sees it");
}

#[test]
fn no_read_is_stale_not_even_from_a_member_that_was_cut_off() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let writer = open(from(&cluster, (leader + 1) % 3));
    let reader = open(from(&cluster, leader));
    let mut settings = Settings::plain(vec![cluster.endpoint(leader)], "/medevo", "r");
    settings.patience_s = 2.0;
    let cut_off = Etcd::open(&settings).expect("a store");
    for round in 0..3 {
        let (before, after) = (format!("{round}a"), format!("{round}b"));
        writer.transact(&[], &[Write::put("pointer", before.as_bytes())]).expect("a write");
        cluster.freeze(leader);
        writer.transact(&[], &[Write::put("pointer", after.as_bytes())]).expect("a write");
        let away = cut_off.get("pointer").expect_err("it says nothing");
        assert!(matches!(away, StoreError::Unavailable { .. }), "{away}");
        let read = reader.get("pointer").expect("another member answers");
        assert_eq!(read.as_deref(), Some(after.as_bytes()));
        cluster.thaw(leader);
        // It still holds the old value, and may not know yet that others have gone on.
        match cut_off.get("pointer") {
            Ok(read) => assert_eq!(read.as_deref(), Some(after.as_bytes())),
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
    }
}

#[test]
fn a_kept_lease_lives_through_the_loss_of_a_leader() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let store: Arc<dyn Store> = Arc::new(open(from(&cluster, leader)));
    let keeper = Keeper::start(
        store.clone(),
        // On a busy machine the others may need several seconds to agree on a new leader.
        Duration::from_secs(15),
        &[],
        |lease| vec![Write::leased("workers/w1", "1", lease)],
        |reason| panic!("{reason}"),
    )
    .expect("a lease");
    let first = keeper.valid_until();
    cluster.kill(leader);
    // Twice its time: only renewals after the loss can bring it there.
    while keeper.valid_until() < first + Duration::from_secs(15) {
        assert_eq!(keeper.lost(), None);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(store.get("workers/w1").expect("a read").is_some());
    keeper.stop().expect("an answer");
    assert_eq!(store.get("workers/w1").expect("a read"), None);
}

#[test]
fn a_roll_misses_nothing_when_its_member_dies() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let store = Arc::new(open(from(&cluster, leader)));
    let other = open(from(&cluster, (leader + 1) % 3));
    let writes = [Write::put("w/1", "a"), Write::put("w/2", "a")];
    other.transact(&[], &writes).expect("a write");
    let mut roll = Roll::new(store, "w/", Duration::from_secs(3600));
    assert_eq!(roll.next(PATIENCE).expect("an answer").changed.len(), 2);
    assert!(roll.next(Duration::from_millis(200)).expect("an answer").is_empty(), "it watches");
    cluster.kill(leader);
    other.transact(&[], &[Write::delete("w/1"), Write::put("w/3", "a")]).expect("a write");
    let missed = roll.next(PATIENCE).expect("another member answers");
    assert_eq!(missed.gone, ["w/1"]);
    assert_eq!(missed.changed, [("w/3".to_owned(), b"a".to_vec())]);
    other.transact(&[], &[Write::put("w/2", "b")]).expect("a write");
    assert_eq!(roll.next(PATIENCE).expect("an answer").changed.len(), 1, "and it watches again");
}

#[test]
fn a_roll_notices_a_member_that_is_frozen() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let store = Arc::new(open(from(&cluster, leader)));
    let other = open(from(&cluster, (leader + 1) % 3));
    other.transact(&[], &[Write::put("w/1", "a")]).expect("a write");
    let mut roll = Roll::new(store, "w/", Duration::from_secs(3600));
    roll.next(PATIENCE).expect("an answer");
    assert!(roll.next(Duration::from_millis(200)).expect("an answer").is_empty(), "it watches");
    cluster.freeze(leader);
    other.transact(&[], &[Write::delete("w/1")]).expect("a write");
    // The watch's connection stays open; only pings that are not answered tell.
    assert_eq!(roll.next(PATIENCE).expect("another member answers").gone, ["w/1"]);
    cluster.thaw(leader);
}

#[test]
fn a_compacted_revision_is_said_and_a_snapshot_goes_on() {
    let cluster = Cluster::start(1);
    let store = Arc::new(open(cluster.endpoints()));
    store.transact(&[], &[Write::put("w/1", "a")]).expect("a write");
    let old = store.list("w/").expect("a list");
    store.transact(&[], &[Write::put("w/2", "a")]).expect("a write");
    store.transact(&[], &[Write::put("w/3", "a")]).expect("a write");
    let now = store.list("w/").expect("a list").revision;
    cluster.ctl(&["compact", &now.to_string()]);
    let mut watch = store.watch("w/", old.revision).expect("a watch");
    let late = loop {
        match watch.wait(PATIENCE) {
            Ok(seen) => assert!(seen.is_empty(), "{seen:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(late, StoreError::Compacted { revision } if revision == now), "{late}");
    let again = watch.wait(PATIENCE).expect_err("it has ended");
    assert!(matches!(again, StoreError::WatchBroken { .. }), "{again}");
    assert_eq!(store.list("w/").expect("a list").entries.len(), 3);
}

#[test]
fn a_cluster_without_a_majority_is_said_to_be_away_within_the_patience() {
    let mut cluster = Cluster::start(3);
    let mut settings = Settings::plain(cluster.endpoints(), "/medevo", "r");
    settings.patience_s = 3.0;
    let store = Etcd::open(&settings).expect("a store");
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.freeze((leader + 1) % 3);
    let asked = Instant::now();
    let away = store.get("a").expect_err("no majority");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let sentence = away.to_string();
    assert!(matches!(away, StoreError::Unavailable { .. }), "{sentence}");
    assert!(sentence.contains(&cluster.endpoint(leader)), "{sentence}");
    cluster.thaw((leader + 1) % 3);
    let until = Instant::now() + PATIENCE;
    while let Err(error) = store.get("a") {
        assert!(error.is_passing() && Instant::now() < until, "{error}");
    }
}

#[test]
fn a_blocked_runtime_of_the_caller_starves_nothing() {
    let cluster = Cluster::start(1);
    let store: Arc<dyn Store> = Arc::new(open(cluster.endpoints()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // The runtime's only thread is inside the call: a client that lived on it would never answer.
    let read = runtime.expect("a runtime").block_on(async {
        store.transact(&[], &[Write::put("a", "1")]).expect("a write");
        let keeper = Keeper::start(
            store.clone(),
            Duration::from_secs(2),
            &[],
            |lease| vec![Write::leased("b", "1", lease)],
            |reason| panic!("{reason}"),
        )
        .expect("a lease");
        let first = keeper.valid_until();
        let until = Instant::now() + PATIENCE;
        while keeper.valid_until() < first + Duration::from_secs(2) {
            assert!(Instant::now() < until, "no renewal while the runtime is blocked");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(keeper);
        store.get("a").expect("a read")
    });
    assert_eq!(read.as_deref(), Some(b"1".as_slice()));
}
