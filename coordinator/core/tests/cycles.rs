//! Several optimizer steps on one rollout, and rollouts that go on until enough groups train.

use std::sync::Arc;

use medevo_core::*;
use medevo_sim::{Sim, spec};
use medevo_types::{PolicyVersion, Step, messages::TrainAnswer};

fn start(spec: RunSpec) -> Sim {
    let mut sim = Sim::new(spec);
    sim.join("w0");
    sim
}

type Groups = Vec<(SampleIndex, Arc<[TrainAnswer]>)>;

fn update(sim: &mut Sim) -> (PolicyVersion, PolicyVersion, Groups) {
    match sim.pull("w0") {
        Order::Update { policy, share: Share::Grpo { rollout_policy, groups, .. }, .. } => {
            (policy, rollout_policy, groups)
        }
        other => panic!("an rl update, not {other:?}"),
    }
}

fn published(sim: &Sim) -> Vec<u64> {
    let step = |record: &Record| match record {
        Record::Checkpoint(checkpoint) => Some(checkpoint.step.0),
        _ => None,
    };
    sim.records.iter().filter_map(step).collect()
}

fn figures(sim: &Sim, name: &str) -> Vec<Option<f64>> {
    let figure = |event: &Event| match event {
        Event::StepCommitted { figures, .. } => Some(figures.get(name).copied()),
        _ => None,
    };
    sim.events.iter().filter_map(figure).collect()
}

// Broken, a second iteration would train on other candidates, or say that its own weights drew them.
#[test]
fn every_step_of_a_cycle_trains_on_the_same_groups_and_says_who_drew_them() {
    let mut sim = start(spec::reusing(spec::only_rl(5), 3, 0));
    sim.run_to("updating", 0);
    let (policy, drawn_by, first) = update(&mut sim);
    assert_eq!((policy, drawn_by), (PolicyVersion(0), PolicyVersion(0)));
    sim.run_to("updating", 1);
    assert_eq!(
        sim.core.explain(sim.now),
        "update of step 2 (iteration 2 of 3): waiting on w0 (ballot), 3 s left"
    );
    assert_eq!(update(&mut sim), (PolicyVersion(1), PolicyVersion(0), first.clone()));
    sim.run_to("updating", 2);
    assert_eq!(update(&mut sim), (PolicyVersion(2), PolicyVersion(0), first.clone()));
    // The stage's end cuts the second cycle short.
    sim.run_to("updating", 3);
    assert!(sim.core.explain(sim.now).contains("step 4 (iteration 1 of 2)"));
    let (policy, drawn_by, second) = update(&mut sim);
    assert_eq!((policy, drawn_by), (PolicyVersion(3), PolicyVersion(3)));
    assert_ne!(first, second);
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.scorer.scorings, 2, "one scoring a rollout");
    assert_eq!(figures(&sim, "iteration"), [1.0, 2.0, 3.0, 1.0, 2.0].map(Some));
    sim.checker.complete(5);
}

// Questions advance with rollouts, not with optimizer steps: else two thirds of the data would be left out.
#[test]
fn questions_advance_once_a_rollout() {
    let drawn = |iterations: u64| {
        let mut sim = start(spec::reusing(spec::only_rl(2 * iterations), iterations, 0));
        let mut drawn = Vec::new();
        for rollout in 0..2 {
            sim.run_to("updating", rollout * iterations);
            drawn.extend(update(&mut sim).2.into_iter().map(|(sample, _)| sample));
        }
        drawn
    };
    assert_eq!(drawn(1), drawn(3));
}

#[test]
fn checkpoints_and_evaluations_wait_for_the_end_of_a_cycle() {
    let pass =
        EvalPass { name: "greedy".into(), data: 1, samples: 5, sampling: Default::default() };
    let stages = vec![spec::rl("adapt", 7, 2, vec![pass])];
    let spec = RunSpec { stages, ..spec::whole() };
    let mut sim = start(spec::reusing(spec, 3, 0));
    assert_eq!(sim.finish(), Outcome::Done);
    // Due every 2 steps, but cycles end at 3, 6 and 7: after 7 no multiple of 2 has passed, yet the stage ends.
    assert_eq!(published(&sim), [3, 6, 7]);
    let passes = sim.events.iter().filter_map(|event| match event {
        Event::PassDone { step, .. } => Some(step.0),
        _ => None,
    });
    assert_eq!(passes.collect::<Vec<_>>(), [3, 6]);
}

// Broken, a drain would throw the cycle's updates away, or write a checkpoint that nothing can go on from.
#[test]
fn a_drain_finishes_the_cycle() {
    let mut sim = start(spec::reusing(spec::only_rl(6), 3, 0));
    sim.run_to("updating", 1);
    sim.feed(Input::Drain { reason: "SIGTERM".into() });
    assert_eq!(sim.finish(), Outcome::Drained { reason: "SIGTERM".into() });
    assert_eq!(published(&sim), [3]);
}

#[test]
fn a_worker_lost_in_the_middle_of_a_cycle_costs_an_attempt_and_no_groups() {
    let mut sim = start(spec::reusing(spec::only_rl(3), 3, 0));
    sim.join("w1");
    sim.run_to("updating", 1);
    sim.kill(&"w0".into(), true);
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.scorer.scorings, 1);
    assert!(!sim.events.iter().any(|event| matches!(event, Event::RolledBack { .. })));
    sim.checker.complete(3);
}

#[test]
fn inv_7_a_restart_in_the_middle_of_a_cycle_goes_back_to_its_start() {
    let mut sim = start(spec::reusing(spec::only_rl(6), 3, 0));
    sim.run_to("updating", 3);
    let cycle = update(&mut sim).2;
    sim.run_to("updating", 4);
    sim.restart_coordinator();
    sim.run_to("updating", 3);
    let again = update(&mut sim).2;
    let samples = |groups: &[(SampleIndex, _)]| groups.iter().map(|(s, _)| *s).collect::<Vec<_>>();
    assert_eq!(samples(&again), samples(&cycle));
    assert_eq!(sim.finish(), Outcome::Done);
    sim.checker.complete(6);
}

// As in TRL, where a rollout without any advantage still costs its optimizer steps.
#[test]
fn a_rollout_that_teaches_nothing_passes_its_whole_cycle() {
    let mut sim = start(spec::reusing(spec::only_rl(6), 3, 0));
    sim.scorer.quiet_every = 1;
    sim.run_to("rollout", 3);
    sim.scorer.quiet_every = 0;
    sim.run_to("updating", 3);
    assert_eq!(update(&mut sim).0, PolicyVersion(0));
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.committed_steps(), [1, 2, 3, 4, 5, 6]);
}

// Broken, a step would train on fewer questions than it was given, although the data has more to teach.
#[test]
fn dynamic_sampling_draws_on_until_enough_groups_train() {
    let mut sim = start(spec::reusing(spec::only_rl(2), 1, 5));
    // Samples 0, 3 and 6 of the 7 teach nothing.
    sim.scorer.dull_every = 3;
    sim.run_to("updating", 0);
    let order = samples_from(sim.spec.seed, 0, 0, 7, 7, 1);
    let trained: Vec<SampleIndex> = update(&mut sim).2.into_iter().map(|(s, _)| s).collect();
    let teaching: Vec<SampleIndex> = order.iter().copied().filter(|s| s % 3 != 0).collect();
    assert_eq!(trained, teaching, "in the order's order");
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(figures(&sim, "groups_without_signal")[0].map(|n| n > 0.0), Some(true));
    assert!(figures(&sim, "rounds").iter().all(|rounds| rounds.is_some_and(|n| n > 1.0)));
}

#[test]
fn the_order_goes_on_behind_the_questions_that_were_drawn_beyond_the_usual() {
    let mut sim = start(spec::reusing(spec::only_rl(4), 1, 1));
    sim.scorer.dull_every = 2;
    sim.run_to("scoring", 0);
    sim.drive(true);
    assert!(sim.core.explain(sim.now).starts_with("rollout of step 1 (round 2): "));
    sim.run_to("rollout", 2);
    let Some(Record::Checkpoint(checkpoint)) =
        sim.records.iter().rfind(|record| matches!(record, Record::Checkpoint(_)))
    else {
        panic!("one after step 2")
    };
    assert!(checkpoint.position.extra > 0, "the cursor is in the checkpoint");
    // The checker holds the order against its own account, before and after a restart.
    sim.restart_coordinator();
    assert_eq!(sim.finish(), Outcome::Done);
    sim.checker.complete(4);
}

// The same weights answer the same question in the same way: drawing it twice costs time and teaches nothing.
#[test]
fn a_rollout_never_draws_more_questions_than_there_are() {
    let mut sim = start(spec::reusing(spec::only_rl(1), 1, 50));
    sim.scorer.dull_every = 1;
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(figures(&sim, "groups_without_signal"), [Some(7.0)]);
    assert_eq!(figures(&sim, "rounds"), [Some(2.0)], "four questions, then the three others");
    let commit = sim.records.iter().find(|record| matches!(record, Record::Commit { .. }));
    assert!(matches!(commit, Some(Record::Commit { step: Step(1), .. })));
}

#[test]
fn what_is_still_missing_after_the_last_round_is_done_without() {
    let mut sim = start(spec::reusing(spec::only_rl(1), 1, 1));
    sim.scorer.dull_every = 2;
    sim.run_to("updating", 0);
    assert!((1..4).contains(&update(&mut sim).2.len()));
    assert_eq!(sim.finish(), Outcome::Done);
}
