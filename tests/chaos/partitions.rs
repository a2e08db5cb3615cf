//! Partitions with real network namespaces, where this process is root: a worker that cannot reach its coordinator
//! but its peers, and one that can reach nobody. Both are healed later.

use std::net::TcpListener;

use medevo_tests::{
    chaos::network::{Network, Plane},
    cluster::Cluster,
    history::History,
    lab::Lab,
};

/// Cuts `planes` of w1 in the middle of a run and heals them once the others have gone on without it.
fn cut(planes: &[Plane]) {
    let Some(network) = Network::up(3) else { return };
    let lab = Lab::new();
    let free = TcpListener::bind((network.coordinator(), 0)).expect("a port");
    let address = free.local_addr().expect("its address").to_string();
    drop(free);
    let mut cluster = Cluster::new(&lab, "run").listening_on(&address);
    let set =
        ["stage.adapt.steps=1000", "cluster.collective_timeout_s=4", "cluster.prompts_per_unit=1"];
    cluster.launch(&lab, 3, &set, "");
    for host in 0..3 {
        let name = format!("w{host}");
        let mut worker = cluster.worker(&name);
        worker.args(["--address", &network.peer(host)]);
        cluster.join_by(&name, "", network.on(host, &worker));
    }
    cluster.until_committed(6);
    for plane in planes {
        network.set(1, *plane, false);
    }
    cluster.until_event("w1 is given up", |history| history.is_lost("w1"));
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 2);
    for plane in planes {
        network.set(1, *plane, true);
    }
    cluster.until_event("w1 takes part again", |history| history.roster().contains(&"w1"));
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    cluster.drain();
    let history = History::read(cluster.dir());
    let _ = history.check_invariants();
    history.check_digests();
    assert_eq!(history.steps_redone(), 0, "the others held the weights");
}

/// Fails when a worker whose coordinator is out of reach holds up the run, or does harm when it is back.
#[test]
fn from_the_coordinator_only() {
    cut(&[Plane::Control]);
}

/// Fails when the others wait for ever in a collective with a host that has gone silent.
#[test]
fn from_everyone() {
    cut(&[Plane::Control, Plane::Data]);
}
