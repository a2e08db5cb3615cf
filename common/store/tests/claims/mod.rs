//! What every store promises.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use medevo_store::{Change, Guard, Store, StoreError, Write};

/// A kind of store, and where its runs are kept.
pub trait Subject {
    /// Opens a run's store. One run is open once at a time.
    fn open(&self, run: &str) -> Arc<dyn Store>;
}

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn guard(key: &str, expected: Option<&str>) -> Guard {
    Guard { key: key.into(), expected: expected.map(Into::into) }
}

fn value(store: &dyn Store, key: &str) -> Option<String> {
    let value = store.get(key).expect("a read");
    value.map(|value| String::from_utf8(value).expect("the tests write text"))
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).expect("a list");
    listed.entries.into_iter().map(|(key, _)| key).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn what_is_written_is_read(subject: &impl Subject) {
    let store = subject.open("r");
    assert_eq!(value(&*store, "a"), None);
    store.transact(&[], &[Write::put("a", "1"), Write::put("b", "2")]).expect("a write");
    assert_eq!(value(&*store, "a").as_deref(), Some("1"));
    store.transact(&[], &[Write::put("a", "3"), Write::delete("b")]).expect("a write");
    assert_eq!(value(&*store, "a").as_deref(), Some("3"));
    assert_eq!(value(&*store, "b"), None);
    store.transact(&[], &[Write::delete("never there")]).expect("no error");
    // An empty value is a value.
    store.transact(&[guard("e", None)], &[Write::put("e", "")]).expect("a write");
    assert_eq!(value(&*store, "e").as_deref(), Some(""));
    store.transact(&[guard("e", Some(""))], &[Write::put("e", "x")]).expect("a write");
}

pub fn all_guards_hold_or_nothing_is_written(subject: &impl Subject) {
    let store = subject.open("r");
    store
        .transact(&[guard("term", None)], &[Write::put("term", "1"), Write::put("a", "x")])
        .expect("a write");
    // A guard that does not hold writes nothing, not even in part, and is named.
    for (wrong, failed) in [
        (vec![guard("term", None)], "term"),
        (vec![guard("term", Some("2"))], "term"),
        (vec![guard("absent", Some("1"))], "absent"),
        (vec![guard("term", Some("1")), guard("a", Some("y")), guard("b", None)], "a"),
    ] {
        let writes = [Write::put("a", "y"), Write::put("b", "y"), Write::delete("term")];
        match store.transact(&wrong, &writes) {
            Err(StoreError::GuardFailed { key }) => assert_eq!(key, failed),
            other => panic!("{wrong:?} must not hold, but: {other:?}"),
        }
    }
    assert_eq!(value(&*store, "a").as_deref(), Some("x"));
    assert_eq!(value(&*store, "b"), None);
    // The guarded key can change in the same transaction: that is how a term is taken over.
    let both = [guard("term", Some("1")), guard("a", Some("x"))];
    store.transact(&both, &[Write::put("term", "2"), Write::delete("a")]).expect("a write");
    let late = store.transact(&[guard("term", Some("1"))], &[Write::put("a", "late")]);
    assert!(matches!(late, Err(StoreError::GuardFailed { .. })), "INV-8: {late:?}");
    assert_eq!(value(&*store, "a"), None);
}

pub fn one_of_many_wins_each_compare_and_swap(subject: &impl Subject) {
    const THREADS: usize = 8;
    const ROUNDS: usize = 20;
    let store = subject.open("r");
    let (start, end) = (Barrier::new(THREADS), Barrier::new(THREADS));
    let winners: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for me in 0..THREADS {
            let (store, start, end, winners) = (&store, &start, &end, &winners);
            scope.spawn(move || {
                for (round, winners) in winners.iter().enumerate() {
                    let held = store.get("leader").expect("a read");
                    start.wait();
                    let mine = Write::put("leader", format!("{round}/{me}"));
                    let guard = Guard { key: "leader".into(), expected: held };
                    match store.transact(&[guard], &[mine]) {
                        Ok(()) => _ = winners.fetch_add(1, Ordering::SeqCst),
                        Err(StoreError::GuardFailed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    end.wait();
                }
            });
        }
    });
    for (round, winners) in winners.iter().enumerate() {
        assert_eq!(winners.load(Ordering::SeqCst), 1, "winners of round {round}");
    }
}

pub fn a_list_is_whole_and_in_order(subject: &impl Subject) {
    let store = subject.open("r");
    let names: Vec<String> = (0..1200).map(|i| format!("r/{:05}", (i * 7919) % 100_000)).collect();
    for some in names.chunks(100) {
        let writes: Vec<Write> = some.iter().map(|key| Write::put(key, key.as_bytes())).collect();
        store.transact(&[], &writes).expect("a write");
    }
    let others = ["r", "r0", "s/1", "q/1", "r/2", "r/10"];
    store.transact(&[], &others.map(|key| Write::put(key, "x"))).expect("a write");
    let lease = store.grant(Duration::from_secs(60)).expect("a lease");
    store.transact(&[], &[Write::leased("r/00000!", "x", lease)]).expect("a write");
    let mut expected = names.clone();
    expected.extend(["r/2", "r/10", "r/00000!"].map(str::to_owned));
    expected.sort();
    assert_eq!(keys(&*store, "r/"), expected, "byte order, all of them, and nothing else");
    assert_eq!(keys(&*store, "zzz"), [""; 0]);
    assert_eq!(keys(&*store, "").len(), expected.len() + 4, "the store's own keys are hidden");
}

pub fn large_values_come_back_whole(subject: &impl Subject) {
    let store = subject.open("r");
    let large: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
    let before = store.list("").expect("a list").revision;
    for i in 0..8 {
        store.transact(&[], &[Write::put(format!("l/{i}"), large.clone())]).expect("a write");
    }
    let listed = store.list("l/").expect("a list");
    assert_eq!(listed.entries.len(), 8);
    assert!(listed.entries.iter().all(|(_, value)| *value == large));
    let mut watch = store.watch("l/", before).expect("a watch");
    let mut seen = 0;
    until("eight changes", || {
        seen += watch.wait(Duration::from_millis(100)).expect("a whole watch").len();
        seen == 8
    });
}

pub fn a_lease_is_renewed_and_runs_out(subject: &impl Subject) {
    let store = subject.open("r");
    let ttl = Duration::from_secs(2);
    let kept = store.grant(ttl).expect("a lease");
    let left = store.grant(ttl).expect("a lease");
    let writes = [Write::leased("w/kept", "1", kept), Write::leased("w/left", "1", left)];
    store.transact(&[], &writes).expect("a write");
    assert_eq!(keys(&*store, "w/"), ["w/kept", "w/left"]);
    until("a lease that is not renewed runs out", || {
        assert!(store.renew(kept).expect("a renewal") >= ttl);
        value(&*store, "w/left").is_none()
    });
    assert_eq!(keys(&*store, "w/"), ["w/kept"], "the one that is renewed stays");
    assert!(matches!(store.renew(left), Err(StoreError::LeaseLost { lease }) if lease == left));
    let late = store.transact(&[], &[Write::leased("w/left", "2", left)]);
    assert!(matches!(late, Err(StoreError::LeaseLost { lease }) if lease == left), "{late:?}");
    assert_eq!(value(&*store, "w/left"), None);
    until("and goes when nobody renews it", || value(&*store, "w/kept").is_none());
}

pub fn a_revoked_lease_takes_its_keys_at_once(subject: &impl Subject) {
    let store = subject.open("r");
    let lease = store.grant(Duration::from_secs(600)).expect("a lease");
    let writes = [Write::leased("a", "1", lease), Write::leased("b", "1", lease)];
    store.transact(&[], &writes).expect("a write");
    store.transact(&[], &[Write::delete("b")]).expect("a write");
    store.transact(&[guard("a", Some("1"))], &[Write::put("c", "1")]).expect("leased keys guard");
    store.revoke(lease).expect("an answer");
    assert_eq!(keys(&*store, ""), ["c"]);
    assert!(matches!(store.renew(lease), Err(StoreError::LeaseLost { .. })));
    store.revoke(lease).expect("no error for one that is gone");
}

pub fn a_write_without_a_lease_outlives_the_one_before(subject: &impl Subject) {
    let store = subject.open("r");
    let lease = store.grant(Duration::from_secs(600)).expect("a lease");
    store.transact(&[], &[Write::put("a", "0"), Write::put("b", "0")]).expect("a write");
    store.transact(&[], &[Write::leased("a", "1", lease)]).expect("a write");
    store.transact(&[], &[Write::leased("b", "1", lease)]).expect("a write");
    store.transact(&[], &[Write::put("b", "2")]).expect("a write");
    assert_eq!(value(&*store, "a").as_deref(), Some("1"));
    store.revoke(lease).expect("an answer");
    assert_eq!(value(&*store, "a"), None, "the value before it does not come back");
    assert_eq!(value(&*store, "b").as_deref(), Some("2"));
}

pub fn a_watch_tells_what_happens_after_a_snapshot(subject: &impl Subject) {
    let store = subject.open("r");
    store.transact(&[], &[Write::put("w/old", "1")]).expect("a write");
    let snapshot = store.list("w/").expect("a list");
    // Before the watch is there, and after.
    store.transact(&[], &[Write::put("w/a", "1"), Write::put("x", "1")]).expect("a write");
    let mut watch = store.watch("w/", snapshot.revision).expect("a watch");
    let lease = store.grant(Duration::from_secs(600)).expect("a lease");
    store.transact(&[], &[Write::leased("w/b", "1", lease)]).expect("a write");
    store.transact(&[], &[Write::delete("w/old")]).expect("a write");
    store.revoke(lease).expect("an answer");
    let mut seen: Vec<Change> = Vec::new();
    until("four changes", || {
        seen.extend(watch.wait(Duration::from_millis(100)).expect("a whole watch"));
        seen.len() >= 4
    });
    let told: Vec<_> = seen.iter().map(|c| (c.key.as_str(), c.value.as_deref())).collect();
    let one = Some(b"1".as_slice());
    assert_eq!(told, [("w/a", one), ("w/b", one), ("w/old", None), ("w/b", None)]);
    assert!(seen.is_sorted_by_key(|change| change.revision));
    assert!(seen[0].revision > snapshot.revision);
    assert_eq!(watch.wait(Duration::from_millis(50)).expect("a whole watch"), []);
}

pub fn values_survive_reopening(subject: &impl Subject) {
    let store = subject.open("r");
    store.transact(&[guard("term", None)], &[Write::put("term", "1")]).expect("a write");
    drop(store);
    let again = subject.open("r");
    assert_eq!(value(&*again, "term").as_deref(), Some("1"));
    again.transact(&[guard("term", Some("1"))], &[Write::put("term", "2")]).expect("a write");
}

pub fn runs_do_not_see_each_other(subject: &impl Subject) {
    // One name is the start of the other.
    let (one, two) = (subject.open("run"), subject.open("run-2"));
    one.transact(&[], &[Write::put("a", "1")]).expect("a write");
    two.transact(&[guard("a", None)], &[Write::put("a", "2"), Write::put("b", "2")])
        .expect("a write");
    assert_eq!(keys(&*one, ""), ["a"]);
    assert_eq!(keys(&*two, ""), ["a", "b"]);
    let mut watch = one.watch("", one.list("").expect("a list").revision).expect("a watch");
    two.transact(&[], &[Write::put("c", "2")]).expect("a write");
    one.transact(&[], &[Write::put("d", "1")]).expect("a write");
    let mut seen = Vec::new();
    until("a change of its own", || {
        seen.extend(watch.wait(Duration::from_millis(100)).expect("a whole watch"));
        !seen.is_empty()
    });
    assert_eq!(seen.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["d"]);
}

pub fn a_key_is_written_once_in_a_transaction(subject: &impl Subject) {
    let store = subject.open("r");
    let twice = store.transact(&[], &[Write::put("a", "1"), Write::delete("a")]);
    let sentence = twice.expect_err("etcd refuses it").to_string();
    assert!(sentence.contains("`a` is written twice in one transaction"), "{sentence}");
    assert_eq!(value(&*store, "a"), None);
}
