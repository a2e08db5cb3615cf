//! Units: pulled, handed out again, answered once.

use medevo_core::*;
use medevo_sim::{
    Sim, spec,
    weights::{group, model},
};
use medevo_types::{
    Attempt, PolicyVersion, Step, UnitId,
    messages::{Envelope, Rejection, Report},
};

fn start(workers: &[&str]) -> Sim {
    let mut sim = Sim::new(spec::only_rl(1));
    for worker in workers {
        sim.join(worker);
    }
    sim.run_to("rollout", 0);
    sim
}

fn unit(order: &Order) -> (UnitId, Vec<usize>) {
    match order {
        Order::Rollout { unit, samples, .. } => (*unit, samples.clone()),
        other => panic!("not a unit: {other:?}"),
    }
}

fn report(sim: &mut Sim, worker: &str, body: Report) -> Result<(), Rejection> {
    let (from, generation) = (sim.tag(worker), sim.core.view(sim.now).generation);
    sim.send(Envelope { from, generation, step: Step(1), attempt: Attempt(0), body })
}

fn done(unit: UnitId, samples: &[usize]) -> Report {
    let policy = PolicyVersion(0);
    let groups = samples.iter().map(|&s| group(s, 2, policy, &model())).collect();
    Report::RolloutDone { unit, policy, groups }
}

fn failed(retryable: bool) -> Report {
    Report::Failed { what: "rollout".into(), error: "out of memory".into(), retryable }
}

#[test]
fn pulling_again_gives_the_same_unit_and_two_workers_get_two() {
    let mut sim = start(&["w0", "w1"]);
    let first = sim.pull("w0");
    assert_eq!(sim.pull("w0"), first);
    assert_ne!(unit(&sim.pull("w1")).0, unit(&first).0);
    assert_eq!(unit(&first).0.0 >> 40, 1, "the term stands in the high bits");
}

// An overdue unit would hold the step for as long as its worker hangs.
#[test]
fn an_overdue_unit_goes_to_another_worker_and_the_first_answer_wins() {
    let mut sim = start(&["w0", "w1"]);
    let (slow, samples) = unit(&sim.pull("w0"));
    let (other, other_samples) = unit(&sim.pull("w1"));
    report(&mut sim, "w1", done(other, &other_samples)).expect("in time");
    assert!(matches!(sim.pull("w1"), Order::Wait { .. }), "w0 still has time");
    for _ in 0..5 {
        sim.pass(400);
    }
    assert_eq!(unit(&sim.pull("w1")).0, slow);
    let reissued = |e: &Event| matches!(e, Event::UnitReissued { unit, .. } if *unit == slow);
    assert!(sim.events.iter().any(reissued));
    report(&mut sim, "w1", done(slow, &samples)).expect("first");
    assert_eq!(report(&mut sim, "w0", done(slow, &samples)), Err(Rejection::UnknownUnit));
}

#[test]
fn answers_that_do_not_fit_are_turned_away_by_type() {
    let mut sim = start(&["w0"]);
    let (id, samples) = unit(&sim.pull("w0"));
    let unknown = done(UnitId(3), &samples);
    assert_eq!(report(&mut sim, "w0", unknown), Err(Rejection::UnknownUnit));
    assert_eq!(report(&mut sim, "w0", done(id, &samples[..1])), Err(Rejection::Unexpected));
    sim.pull("w0");
    let groups = samples.iter().map(|&s| group(s, 2, PolicyVersion(9), &model())).collect();
    let stale = Report::RolloutDone { unit: id, policy: PolicyVersion(9), groups };
    assert_eq!(report(&mut sim, "w0", stale), Err(Rejection::StalePolicy));
    sim.pull("w0");
    report(&mut sim, "w0", done(id, &samples)).expect("it fits");
    assert_eq!(report(&mut sim, "w0", done(id, &samples)), Err(Rejection::Duplicate));
    assert_eq!(sim.core.view(sim.now).rejected.values().sum::<u64>(), 4);
}

#[test]
fn a_failed_unit_goes_to_somebody_else_first() {
    let mut sim = start(&["w0", "w1"]);
    let (bad, _) = unit(&sim.pull("w0"));
    report(&mut sim, "w0", failed(true)).expect("its own unit");
    assert_ne!(unit(&sim.pull("w0")).0, bad, "w1 may do better");
    assert_eq!(unit(&sim.pull("w1")).0, bad);
}

#[test]
fn a_unit_that_fails_three_times_fails_the_run_with_its_error() {
    let mut sim = start(&["w0"]);
    for _ in 0..3 {
        sim.pull("w0");
        report(&mut sim, "w0", failed(true)).expect("its own unit");
    }
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it goes on") };
    assert!(reason.contains("out of memory") && reason.contains("w0"), "{reason}");
}

#[test]
fn what_cannot_be_tried_again_fails_the_run_at_once() {
    let mut sim = start(&["w0"]);
    sim.pull("w0");
    report(&mut sim, "w0", failed(false)).expect("its own unit");
    assert!(matches!(sim.core.finished(), Some(Outcome::Failed { .. })));
}

// Candidates belong to a policy version: what is drawn must survive the loss of whoever drew it.
#[test]
fn a_lost_worker_costs_only_the_unit_that_it_held() {
    let mut sim = start(&["w0", "w1"]);
    let (first, samples) = unit(&sim.pull("w0"));
    report(&mut sim, "w0", done(first, &samples)).expect("in time");
    let (held, _) = unit(&sim.pull("w0"));
    sim.kill(&"w0".into(), true);
    assert_eq!(unit(&sim.pull("w1")).0, held);
    assert!(sim.core.explain(sim.now).contains("1 of 2 units done, waiting on w1"));
    assert_eq!(sim.finish(), Outcome::Done);
}

#[test]
fn candidates_survive_the_loss_of_every_worker() {
    let mut sim = start(&["w0"]);
    let (first, samples) = unit(&sim.pull("w0"));
    report(&mut sim, "w0", done(first, &samples)).expect("in time");
    sim.kill(&"w0".into(), true);
    sim.join("w1");
    sim.run_to("rollout", 0);
    assert!(sim.core.explain(sim.now).contains("1 of 2 units done"));
}
