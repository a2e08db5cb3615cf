//! The link between a worker and its coordinator: slow, dead for a while, broken.

use std::time::Duration;

use medevo_tests::{
    chaos::{
        kill::{WORKERS, undisturbed},
        link::Link,
    },
    cluster::Cluster,
    history::History,
    lab::{Lab, STEPS},
};

/// A run in which w1 reaches the coordinator through a link of its own.
fn start(lab: &Lab, set: &[&str]) -> (Cluster, Link) {
    let mut cluster = Cluster::new(lab, "run");
    let mut all = vec!["cluster.collective_timeout_s=4", "cluster.prompts_per_unit=1"];
    all.extend(set);
    cluster.launch(lab, WORKERS, &all, "");
    cluster.until_listening();
    let link = Link::to(cluster.address());
    for name in ["w0", "w1", "w2"] {
        let through = if name == "w1" { link.address() } else { cluster.address().to_owned() };
        let command = cluster.worker_through(name, &through);
        cluster.join_by(name, "", command);
    }
    (cluster, link)
}

/// Fails when a slow line costs a worker its lease, or changes what is learned.
#[test]
fn a_slow_link_makes_a_run_slower_and_nothing_else() {
    let lab = Lab::new();
    let whole = undisturbed(&lab);
    let (mut cluster, link) = start(&lab, &[]);
    link.slow(Duration::from_millis(120), 100_000);
    cluster.expect_done();
    let history = History::read(cluster.dir());
    history.check(STEPS);
    assert_eq!(history.of("worker_lost").count(), 0);
    assert!(history.last_state(cluster.dir()) == whole, "the same weights and moments");
}

/// Fails when the run waits for a worker that cannot reach it any more, or when the worker does not come back
/// once it can.
#[test]
fn a_link_that_is_dead_for_longer_than_a_lease() {
    let lab = Lab::new();
    let (mut cluster, link) = start(&lab, &["stage.adapt.steps=1000"]);
    cluster.until_committed(6);
    link.dead(true);
    cluster.until_event("w1 is given up", |history| history.is_lost("w1"));
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    link.dead(false);
    cluster.until_event("w1 takes part again", |history| history.roster().contains(&"w1"));
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    cluster.drain();
    let history = History::read(cluster.dir());
    let _ = history.check_invariants();
    history.check_digests();
    assert_eq!(history.steps_redone(), 0, "the others held the weights");
}
