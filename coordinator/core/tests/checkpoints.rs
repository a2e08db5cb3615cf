//! Checkpoints, drains, coordinator restarts.

use medevo_core::*;
use medevo_sim::{Sim, Trouble, spec};
use medevo_types::{PolicyVersion, Step, Term};

fn start(spec: RunSpec) -> Sim {
    let mut sim = Sim::new(spec);
    sim.join("w0");
    sim.join("w1");
    sim
}

fn published(sim: &Sim) -> Vec<String> {
    let dir = |r: &Record| match r {
        Record::Checkpoint(checkpoint) => Some(checkpoint.dir.display().to_string()),
        _ => None,
    };
    sim.records.iter().filter_map(dir).collect()
}

#[test]
fn a_whole_run_does_every_stage_and_saves_where_it_must() {
    let mut sim = start(spec::whole());
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.committed_steps(), [1, 2, 3, 4, 5, 6]);
    let expected =
        ["checkpoints/step-000002", "checkpoints/step-000004", "checkpoints/step-000006"];
    assert_eq!(published(&sim), expected);
    let passes = sim.events.iter().filter_map(|e| match e {
        Event::PassDone { stage, step, .. } => Some(format!("{stage}@{step}")),
        _ => None,
    });
    let expected = ["before@2", "adapt@4", "adapt@6", "after@6"];
    assert_eq!(passes.collect::<Vec<_>>(), expected);
    let stages = sim.events.iter().filter(|e| matches!(e, Event::StageStarted { .. }));
    assert_eq!(stages.count(), 4);
    sim.checker.complete(6);
}

// The KL anchor is the policy at the stage's start; any other one changes the loss.
#[test]
fn an_rl_stage_is_anchored_to_the_checkpoint_at_its_start() {
    let mut sim = start(spec::whole());
    for step in [2, 5] {
        sim.run_to("updating", step);
        let Order::Update { share: Share::Grpo { reference, .. }, .. } = sim.pull("w0") else {
            panic!("an rl step")
        };
        assert_eq!(reference, Some("checkpoints/step-000002".into()));
    }
    let mut sim = start(spec::only_rl(1));
    sim.run_to("updating", 0);
    let Order::Update { share: Share::Grpo { reference, .. }, .. } = sim.pull("w0") else {
        panic!("an rl step")
    };
    assert_eq!(reference, Some("model".into()), "no step yet: the model itself");
}

// The base is in every worker's memory: a checkpoint for it would be a second copy of the model, for nothing.
#[test]
fn adapters_are_anchored_to_their_base_without_a_checkpoint() {
    for (spec, step) in [(spec::whole(), 2), (spec::whole(), 5), (spec::only_rl(1), 0)] {
        let mut sim = start(RunSpec { adapters: true, ..spec });
        sim.run_to("updating", step);
        let Order::Update { share: Share::Grpo { reference, .. }, .. } = sim.pull("w0") else {
            panic!("an rl step")
        };
        assert_eq!(reference, None);
        assert_eq!(sim.finish(), Outcome::Done);
    }
}

#[test]
fn a_failed_checkpoint_is_tried_again_by_another_rank_in_a_fresh_directory() {
    let mut sim = start(spec::only_rl(2));
    sim.run_to("checkpointing", 2);
    sim.workers.get_mut(&"w0".into()).expect("joined").trouble = Some(Trouble::Retryable);
    sim.act(&"w0".into());
    sim.act(&"w0".into());
    sim.run_to("checkpointing", 2);
    assert!(matches!(sim.pull("w1"), Order::Checkpoint { dir, .. }
        if dir.ends_with("step-000002-2")));
    assert_eq!(sim.finish(), Outcome::Done);
}

#[test]
fn a_periodic_checkpoint_that_fails_three_times_does_not_stop_the_run() {
    let mut sim = start(spec::only_rl(4));
    for _ in 0..3 {
        sim.run_to("checkpointing", 2);
        while !matches!(sim.effects.front(), Some(Effect::WriteManifest { .. })) {
            sim.effects.pop_front();
            sim.act(&"w0".into());
            sim.act(&"w1".into());
        }
        sim.drive(false);
    }
    assert!(sim.events.iter().any(|e| matches!(e, Event::CheckpointFailed { .. })));
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(published(&sim), ["checkpoints/step-000004"]);
}

// A run that says "done" with its weights nowhere on disk would lose them.
#[test]
fn a_run_whose_last_weights_cannot_be_written_is_not_done() {
    let mut sim = start(spec::only_rl(1));
    for _ in 0..3 {
        sim.run_to("checkpointing", 1);
        while !matches!(sim.effects.front(), Some(Effect::WriteManifest { .. })) {
            sim.effects.pop_front();
            sim.act(&"w0".into());
            sim.act(&"w1".into());
        }
        sim.drive(false);
    }
    assert!(matches!(sim.finish(), Outcome::Failed { .. }));
}

#[test]
fn a_drain_stops_at_the_next_step_boundary_with_a_checkpoint() {
    let mut sim = start(spec::only_rl(4));
    sim.run_to("rollout", 0);
    sim.feed(Input::Drain { reason: "SIGTERM".into() });
    assert_eq!(sim.finish(), Outcome::Drained { reason: "SIGTERM".into() });
    assert_eq!(sim.committed_steps(), [1]);
    assert_eq!(published(&sim), ["checkpoints/step-000001"]);
    assert!(matches!(sim.pull("w0"), Order::Stop { .. }));
}

#[test]
fn a_drain_before_anyone_has_come_ends_at_once() {
    let mut sim = Sim::new(spec::only_rl(4));
    sim.feed(Input::Drain { reason: "SIGINT".into() });
    assert_eq!(sim.core.finished(), Some(&Outcome::Drained { reason: "SIGINT".into() }));
}

fn rollbacks(sim: &Sim) -> Vec<(u64, u64)> {
    let back = |event: &Event| match event {
        Event::RolledBack { from, to, .. } => Some((from.0, to.0)),
        _ => None,
    };
    sim.events.iter().filter_map(back).collect()
}

#[test]
fn inv_1_what_lies_behind_the_checkpoint_is_void_when_its_workers_are_gone_too() {
    let mut sim = start(spec::whole());
    sim.run_to("rollout", 3);
    sim.restart_coordinator();
    for name in ["w0", "w1"] {
        sim.kill(&name.into(), true);
    }
    sim.join("w2");
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(rollbacks(&sim), [(3, 2)]);
    assert_eq!(sim.core.view(sim.now).term, Term(2));
    sim.checker.complete(6);
}

// A coordinator that takes over loses no step while somebody holds the weights.
#[test]
fn a_takeover_goes_on_from_the_last_commit() {
    for (phase, step) in [("rollout", 3), ("scoring", 3), ("updating", 3), ("evaluating", 4)] {
        let mut sim = start(spec::whole());
        sim.run_to(phase, step);
        sim.restart_coordinator();
        assert_eq!(sim.finish(), Outcome::Done, "{phase}");
        assert_eq!(rollbacks(&sim), [], "{phase}");
        assert_eq!(sim.committed_steps(), [1, 2, 3, 4, 5, 6], "{phase}");
        let passes = sim.events.iter().filter(
            |e| matches!(e, Event::PassDone { stage, step, .. } if stage == "adapt" && step.0 == 4),
        );
        assert_eq!(passes.count(), 1, "{phase}: the pass that was due is made");
        sim.checker.complete(6);
    }
}

// The commit is on record, nobody has heard of it: the step is done again, and only that one.
#[test]
fn a_takeover_before_anyone_applied_a_commit_redoes_that_step() {
    let mut sim = start(spec::whole());
    sim.run_to("committing", 4);
    sim.restart_coordinator();
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(rollbacks(&sim), [(4, 3)]);
    sim.checker.complete(6);
}

// Within a cycle the verdicts of its rollout went with the coordinator.
#[test]
fn a_takeover_within_a_cycle_goes_back_to_the_checkpoint() {
    let mut sim = start(spec::reusing(spec::only_rl(6), 3, 0));
    sim.run_to("updating", 4);
    sim.restart_coordinator();
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(rollbacks(&sim), [(4, 3)]);
    sim.checker.complete(6);
}

// Those of the last roster hold weights: with them back, nothing is gained by waiting for the grace time.
#[test]
fn a_takeover_waits_for_the_last_roster_and_no_longer() {
    let mut sim = start(RunSpec {
        deadlines: Deadlines { grace_ms: 1_000_000, ..spec::whole().deadlines },
        max_workers: 3,
        ..spec::whole()
    });
    sim.join("w2");
    sim.run_to("rollout", 3);
    sim.restart_coordinator();
    let before = sim.now;
    sim.run_to("rollout", 3);
    assert!(sim.now < before + 10_000, "nobody else is waited for");
    let opened = sim.events.iter().rev().find_map(|event| match event {
        Event::GenerationOpened { workers, .. } => Some(workers.len()),
        _ => None,
    });
    assert_eq!(opened, Some(3));
}

#[test]
fn scored_candidates_survive_the_coordinator() {
    let mut sim = start(spec::only_rl(4));
    sim.run_to("updating", 3);
    let drawn = sim.draws;
    sim.restart_coordinator();
    assert_eq!(sim.finish(), Outcome::Done);
    assert!(
        sim.events.iter().any(
            |event| matches!(event, Event::RolloutKept { step, groups: 4 } if *step == Step(4))
        )
    );
    assert_eq!(sim.draws, drawn, "no candidate of step 4 is drawn again");
    sim.checker.complete(4);
}

#[test]
fn a_restart_at_a_checkpoint_redoes_nothing_and_keeps_the_anchor() {
    let mut sim = start(spec::whole());
    sim.run_to("rollout", 4);
    sim.restart_coordinator();
    sim.run_to("updating", 4);
    let Order::Update { share: Share::Grpo { reference, .. }, .. } = sim.pull("w0") else {
        panic!("an rl step")
    };
    assert_eq!(reference, Some("checkpoints/step-000002".into()));
    assert_eq!(sim.core.view(sim.now).policy, PolicyVersion(4));
    assert_eq!(rollbacks(&sim), []);
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.committed_steps(), [1, 2, 3, 4, 5, 6]);
}

// INV-7, the core's part: the same orders, whatever was interrupted in between.
#[test]
fn inv_7_a_resumed_run_trains_on_the_same_samples() {
    let samples = |interrupted: bool| {
        let mut sim = start(spec::whole());
        let mut seen = Vec::new();
        for step in 0..6 {
            sim.run_to("updating", step);
            if interrupted && step == 3 {
                sim.restart_coordinator();
                sim.run_to("updating", 3);
            }
            for worker in ["w0", "w1"] {
                match sim.pull(worker) {
                    Order::Update { share: Share::Grpo { groups, .. }, .. } => {
                        seen.extend(groups.into_iter().map(|(sample, _)| sample));
                    }
                    Order::Update { share: Share::Sft { samples, .. }, .. } => seen.extend(samples),
                    other => panic!("{other:?}"),
                }
            }
        }
        seen
    };
    assert_eq!(samples(false), samples(true));
}

#[test]
fn a_spec_that_cannot_be_run_fails_before_anything_starts() {
    let mut spec = spec::only_rl(1);
    if let StageKind::Rl { samples, .. } = &mut spec.stages[0].kind {
        *samples = 0;
    }
    let mut sim = Sim::new(spec);
    sim.feed(Input::Tick);
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it starts") };
    assert!(reason.contains("\"adapt\" has nothing to train on"), "{reason}");
}

// With a sharded optimizer every rank writes its part; a manifest without one of them could not be restored.
#[test]
fn a_sharded_checkpoint_waits_for_every_rank() {
    let mut sim = start(RunSpec { sharded: true, ..spec::only_rl(2) });
    sim.run_to("checkpointing", 2);
    assert!(matches!(sim.pull("w1"), Order::Checkpoint { .. }));
    sim.act(&"w0".into());
    sim.act(&"w0".into());
    assert!(sim.effects.is_empty(), "rank 1 has not written yet");
    assert!(sim.core.explain(sim.now).contains("waiting on w1"));
    assert!(matches!(sim.pull("w0"), Order::Wait { .. }));
    sim.act(&"w1".into());
    sim.act(&"w1".into());
    let Some(Effect::WriteManifest { files, .. }) = sim.effects.front() else {
        panic!("all wrote")
    };
    assert_eq!(files.len(), 2);
    assert_eq!(sim.finish(), Outcome::Done);
}

// Any writer's loss leaves a checkpoint without a part: it is tried again, by those who are left, at the step of
// the last good one.
#[test]
fn a_lost_part_sends_a_sharded_run_back_to_its_checkpoint() {
    let mut sim = start(RunSpec { sharded: true, ..spec::only_rl(4) });
    sim.run_to("rollout", 3);
    sim.kill(&"w1".into(), true);
    assert_eq!(sim.finish(), Outcome::Done);
    let back = sim.events.iter().find_map(|event| match event {
        Event::RolledBack { from, to, reason } => Some((from.0, to.0, reason.clone())),
        _ => None,
    });
    let (from, to, reason) = back.expect("the run goes back");
    assert_eq!((from, to), (3, 2));
    assert!(reason.contains("train.shard"), "{reason}");
    assert_eq!(sim.committed_steps(), [1, 2, 3, 3, 4]);
    sim.checker.complete(4);

    // Nothing is lost with a worker that joins, or with one that leaves before the first step.
    let mut sim = start(RunSpec { sharded: true, ..spec::only_rl(3) });
    sim.run_to("rollout", 0);
    sim.kill(&"w1".into(), true);
    sim.run_to("rollout", 1);
    sim.join("w2");
    assert_eq!(sim.finish(), Outcome::Done);
    assert!(!sim.events.iter().any(|event| matches!(event, Event::RolledBack { .. })));
    assert_eq!(sim.committed_steps(), [1, 2, 3]);
}
