//! SIGSTOP and SIGCONT: a host that freezes and comes back when the run has gone on without it.

use medevo_tests::{
    chaos::kill::{Phase, WORKERS},
    cluster::{COORDINATOR, Cluster},
    history::History,
    lab::{Lab, STEPS},
};

/// A run with three workers; `w1` stands still at its fault point, the coordinator at its own ("" for none).
fn start(lab: &Lab, set: &[&str], worker: &str, coordinator: &str) -> Cluster {
    let mut cluster = Cluster::new(lab, "run");
    let mut all = vec!["cluster.collective_timeout_s=4", "cluster.prompts_per_unit=1"];
    all.extend(set);
    cluster.launch(lab, WORKERS, &all, coordinator);
    for rank in 0..WORKERS {
        cluster.join(&format!("w{rank}"), if rank == 1 { worker } else { "" });
    }
    cluster
}

/// Fails when what a worker brings after its lease has run out is taken, or is dropped without a word, or when
/// it does not find its way back.
fn wakes_up_late(point: &str) {
    let lab = Lab::new();
    let mut cluster = start(&lab, &["stage.adapt.steps=1000"], &format!("stop:{point}"), "");
    cluster.until_stopped("w1");
    cluster.until_event("its lease runs out", |history| history.is_lost("w1"));
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    cluster.signal("w1", "CONT");
    cluster.until_event("w1 takes part again", |history| {
        !history.is_lost("w1") && history.roster().contains(&"w1")
    });
    let before = History::read_so_far(cluster.dir()).of("step_committed").count();
    cluster.until_committed(before + 1);
    cluster.drain();
    let history = History::read(cluster.dir());
    let _ = history.check_invariants();
    history.check_digests();
    let late: Vec<_> = history.of("rejected").filter(|e| e["worker"] == "w1").collect();
    assert!(!late.is_empty(), "its late report is on record as turned away");
    assert!(late.iter().all(|e| e["reason"].is_string()), "with a reason: {late:?}");
    let lives = history.of("worker_joined").filter(|e| e["worker"] == "w1").count();
    assert_eq!(lives, 2, "it came back in a new life");
}

/// It meets a collective that the others have left.
#[test]
fn a_worker_that_slept_past_its_lease_before_an_update() {
    wakes_up_late("update@6");
}

/// With the gradient reduced only its vote is missing; the others must give the try up.
#[test]
fn a_worker_that_slept_past_its_lease_with_its_ballot_in_hand() {
    wakes_up_late("ballot@6");
}

/// Fails when a pause of the coordinator that is shorter than a lease costs the run a worker or a step.
#[test]
fn a_coordinator_that_stops_for_less_than_a_lease_loses_nobody() {
    for phase in [Phase::Rollout, Phase::Committing] {
        let lab = Lab::new();
        let point = format!("stop:{}@8", phase.name());
        let mut cluster = start(&lab, &[], "", &point);
        cluster.until_stopped(COORDINATOR);
        // Not a wait for luck: the pause is what is tested.
        std::thread::sleep(std::time::Duration::from_secs(2));
        cluster.signal(COORDINATOR, "CONT");
        cluster.expect_done();
        let history = History::read(cluster.dir());
        history.check(STEPS);
        assert_eq!(history.of("worker_lost").count(), 0, "{point}");
        assert_eq!(history.of("generation_opened").count(), 1, "{point}");
        assert_eq!(history.steps_redone(), 0, "{point}");
    }
}
