//! Members of etcd that are cut off from everyone, with real network namespaces, where this process is root.

use medevo_tests::{
    chaos::{kill::WORKERS, network::Network},
    cluster::{COORDINATOR, Cluster, STANDBY},
    etcd::Etcd,
    history::History,
    lab::Lab,
};

/// A run whose store is on three hosts, with a standby.
struct Run {
    cluster: Cluster,
    etcd: Etcd,
    network: Network,
    _lab: Lab,
}

impl Run {
    fn start() -> Option<Self> {
        let network = Network::up(3)?;
        let hosts: Vec<_> = (0..3).map(|host| network.etcd_host(host)).collect();
        let etcd = Etcd::start_on(&hosts);
        let lab = Lab::new();
        let mut cluster = Cluster::new(&lab, "run");
        let endpoints = format!("store.endpoints={:?}", etcd.endpoints());
        let set = [
            "stage.adapt.steps=1000",
            "cluster.prompts_per_unit=1",
            "store.kind=etcd",
            "store.leader_ttl_s=4",
            &endpoints,
        ];
        cluster.serve(&lab, WORKERS, &set, "");
        cluster.until_event("a coordinator leads", |history| history.of("started").count() == 1);
        cluster.stand_by();
        for worker in 0..WORKERS {
            let name = format!("w{worker}");
            let command = cluster.worker_that_searches(&name);
            cluster.join_by(&name, "", command);
        }
        cluster.until_committed(4);
        Some(Self { cluster, etcd, network, _lab: lab })
    }

    /// Waits for further steps, whoever leads.
    fn goes_on(&mut self) {
        let before = History::read_so_far(self.cluster.dir()).of("step_committed").count();
        let dir = self.cluster.dir().to_owned();
        medevo_tests::process::until("further steps", || {
            History::read_so_far(&dir).of("step_committed").count() >= before + 3
        });
    }

    /// Ends the run and holds its events against the invariants.
    fn end(mut self) {
        let leader = match self.cluster.ended(COORDINATOR) {
            None => COORDINATOR,
            // Deposed: it says so and leaves.
            Some(status) => {
                assert_eq!(status.code(), Some(4), "{}", self.cluster.said());
                STANDBY
            }
        };
        self.cluster.signal(leader, "INT");
        self.cluster.expect_end(leader, 3);
        if leader == COORDINATOR {
            self.cluster.signal_if_alive(STANDBY, "INT");
        }
        self.cluster.expect_nothing_left();
        let history = History::read(self.cluster.dir());
        let _ = history.check_invariants();
        history.check_digests();
    }
}

/// Fails when a client sticks to a member that answers no more, or takes an old leader's word.
#[test]
fn the_leading_member_is_cut_off() {
    let Some(mut run) = Run::start() else { return };
    let leader = run.etcd.leader();
    run.network.cut(leader, true);
    run.goes_on();
    run.network.cut(leader, false);
    run.goes_on();
    run.end();
}

/// Without a majority nobody may lead. Fails when the run does harm meanwhile, or does not go on afterwards.
#[test]
fn a_majority_is_cut_off() {
    let Some(mut run) = Run::start() else { return };
    let leader = run.etcd.leader();
    let others: Vec<usize> = (0..3).filter(|&member| member != leader).collect();
    for &member in &others {
        run.network.cut(member, true);
    }
    // Longer than the leader's lease.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(8);
    let mut counts = Vec::new();
    while std::time::Instant::now() < until {
        counts.push(History::read_so_far(run.cluster.dir()).of("step_committed").count());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // A step that was on its way may still end within the lease.
    assert_eq!(counts[counts.len() - 10], counts[counts.len() - 1], "steps without a majority");
    for &member in &others {
        run.network.cut(member, false);
    }
    run.goes_on();
    run.end();
}
