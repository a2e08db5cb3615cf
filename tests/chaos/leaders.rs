//! Two coordinators at once, on etcd: the old leader freezes for longer than its lease and wakes up.

use medevo_tests::{
    chaos::kill::{WORKERS, undisturbed},
    cluster::{COORDINATOR, Cluster, STANDBY},
    etcd::Etcd,
    history::History,
    lab::{Lab, STEPS},
};

/// INV-8: fails when a coordinator that lost its lease changes anything, goes on, or leaves without a word.
#[test]
fn a_leader_that_wakes_up_deposed_leaves() {
    let lab = Lab::new();
    let whole = undisturbed(&lab);
    let etcd = Etcd::start(1);
    let mut cluster = Cluster::new(&lab, "run");
    let endpoints = format!("store.endpoints={:?}", etcd.endpoints());
    let set = ["cluster.prompts_per_unit=1", "store.kind=etcd", "store.leader_ttl_s=4", &endpoints];
    cluster.serve(&lab, WORKERS, &set, "stop:updating@8");
    cluster.until_event("a coordinator leads", |history| history.of("started").count() == 1);
    cluster.stand_by();
    for name in ["w0", "w1", "w2"] {
        let command = cluster.worker_that_searches(name);
        cluster.join_by(name, "", command);
    }
    cluster.until_stopped(COORDINATOR);
    cluster.until_event("the standby takes over", |history| history.of("started").count() == 2);
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    cluster.signal(COORDINATOR, "CONT");
    cluster.expect_end(COORDINATOR, 4);
    cluster.led_by(STANDBY);
    cluster.expect_done();
    let history = History::read(cluster.dir());
    history.check(STEPS);
    history.check_digests();
    assert!(history.last_state(cluster.dir()) == whole, "the same weights and moments");
}
