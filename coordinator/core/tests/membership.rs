//! Joins, leases, rosters.

use medevo_core::*;
use medevo_sim::{Sim, spec};
use medevo_types::{
    Generation, Incarnation, Step, WorkerTag,
    messages::{JoinRefused, Rejection},
};

fn refused(reply: Reply) -> Option<JoinRefused> {
    match reply {
        Reply::Join(answer) => answer.err(),
        other => panic!("{other:?}"),
    }
}

fn join(sim: &mut Sim, worker: &str, life: u64) -> Option<JoinRefused> {
    let tag = WorkerTag { worker: worker.into(), incarnation: Incarnation(life) };
    let (device, address) = ("cpu".to_owned(), "127.0.0.1".to_owned());
    refused(sim.feed(Input::Join { tag, device, address }).expect("answered"))
}

// A retried join must not count as a new life, and a dead life must not come back.
#[test]
fn the_same_life_may_ask_again_and_an_earlier_one_may_not() {
    let mut sim = Sim::new(spec::only_rl(1));
    assert_eq!(join(&mut sim, "w0", 5), None);
    assert_eq!(join(&mut sim, "w0", 5), None);
    assert_eq!(join(&mut sim, "w0", 4), Some(JoinRefused::OldLife("w0".into())));
    assert_eq!(sim.core.view(sim.now).workers.len(), 1);
}

#[test]
fn a_later_life_replaces_the_earlier_one() {
    let mut sim = Sim::new(spec::only_rl(1));
    join(&mut sim, "w0", 1);
    assert_eq!(join(&mut sim, "w0", 2), None);
    let old = WorkerTag { worker: "w0".into(), incarnation: Incarnation(1) };
    let reply = sim.feed(Input::Pull(old));
    assert_eq!(reply, Some(Reply::Order(Err(Rejection::StaleIncarnation))));
    assert_eq!(sim.core.view(sim.now).rejected[&Rejection::StaleIncarnation], 1);
}

#[test]
fn a_full_run_refuses_more_and_a_finished_one_refuses_all() {
    let mut sim = Sim::new(RunSpec { max_workers: 2, ..spec::only_rl(1) });
    assert_eq!(join(&mut sim, "w0", 1), None);
    assert_eq!(join(&mut sim, "w1", 1), None);
    assert_eq!(join(&mut sim, "w2", 1), Some(JoinRefused::Full));
    let mut sim = Sim::new(spec::only_rl(1));
    sim.join("w0");
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(join(&mut sim, "w9", 1), Some(JoinRefused::Over));
    assert!(matches!(sim.pull("w0"), Order::Stop { .. }));
}

// Without the grace time every start would form one roster per arriving worker.
#[test]
fn forming_waits_for_the_expected_workers_and_no_longer_than_the_grace_time() {
    let mut sim = Sim::new(spec::only_rl(1));
    sim.join("w0");
    assert!(matches!(sim.pull("w0"), Order::Wait { .. }));
    sim.pass(99);
    sim.join("w1");
    assert!(matches!(sim.pull("w1"), Order::Wait { .. }));
    sim.pass(1);
    let Order::Form(roster) = sim.pull("w1") else { panic!("the grace time is over") };
    assert_eq!((roster.generation, roster.rank, roster.members.len()), (Generation(1), 1, 2));

    let mut sim = Sim::new(spec::only_rl(1));
    for worker in ["w0", "w1", "w2"] {
        sim.join(worker);
    }
    assert!(matches!(sim.pull("w0"), Order::Form(_)), "all are there: nothing to wait for");

    let mut sim = Sim::new(RunSpec { expected_workers: 2, ..spec::only_rl(1) });
    sim.join("w0");
    assert!(matches!(sim.pull("w0"), Order::Wait { .. }));
    sim.join("w1");
    assert!(matches!(sim.pull("w0"), Order::Form(_)), "all that were started are there");
    assert_eq!(join(&mut sim, "w2", 1), None, "another one may come later");
}

#[test]
fn a_run_without_workers_fails_with_a_sentence() {
    let mut sim = Sim::new(RunSpec { min_workers: 2, ..spec::only_rl(1) });
    sim.join("w0");
    assert_eq!(sim.core.explain(0), "forming (start): 1 of at least 2 workers here, 600 s left");
    for _ in 0..1300 {
        sim.pass(500);
    }
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it waits for ever") };
    assert!(reason.contains("1 of at least 2 workers here after 600 s"), "{reason}");
}

// A worker that hangs while it forms must not hold the others.
#[test]
fn who_does_not_form_in_time_is_given_up() {
    let mut sim = Sim::new(RunSpec { max_workers: 2, ..spec::only_rl(1) });
    sim.join("w0");
    sim.join("w1");
    let w0 = "w0".into();
    sim.act(&w0);
    sim.act(&w0);
    assert_eq!(
        sim.core.explain(sim.now),
        "forming generation 1: waiting on w1 (communicator), 6 s left",
        "form_ms, and restore_ms because a new worker may still be loading the model"
    );
    for _ in 0..13 {
        sim.pass(500);
    }
    assert_eq!(sim.core.view(sim.now).generation, Generation(2));
    assert_eq!(sim.core.view(sim.now).workers.len(), 1);
}

#[test]
fn new_workers_wait_for_a_step_boundary() {
    let mut sim = Sim::new(spec::only_rl(2));
    sim.join("w0");
    sim.run_to("rollout", 0);
    sim.join("w1");
    assert!(matches!(sim.pull("w1"), Order::Wait { .. }), "it has no weights yet");
    sim.run_to("rollout", 1);
    let view = sim.core.view(sim.now);
    assert_eq!(view.generation, Generation(2));
    assert!(view.workers.iter().all(|worker| worker.rank.is_some()));
    assert_eq!(sim.finish(), Outcome::Done);
}

#[test]
fn a_silent_worker_is_lost_when_its_lease_runs_out() {
    let mut sim = Sim::new(spec::only_rl(2));
    sim.join("w0");
    sim.join("w1");
    sim.run_to("updating", 0);
    sim.kill(&"w1".into(), false);
    sim.pass(900);
    sim.pass(200);
    let lost = |e: &Event| {
        matches!(e, Event::WorkerLost { worker, reason }
            if worker.0 == "w1" && reason == "its lease ran out")
    };
    assert!(sim.events.iter().any(lost));
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.core.view(sim.now).step, Step(2));
}
