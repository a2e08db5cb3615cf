//! Scoring, ballots, commits, restores.

use medevo_core::*;
use medevo_sim::{Sim, Trouble, spec};
use medevo_types::{
    Attempt, Generation, PolicyVersion, Step,
    messages::{Envelope, Rejection, Restore, RestoreSource},
};

fn start(spec: RunSpec, workers: &[&str]) -> Sim {
    let mut sim = Sim::new(spec);
    for worker in workers {
        sim.join(worker);
    }
    sim
}

fn voided(sim: &Sim) -> Vec<String> {
    let reason = |e: &Event| match e {
        Event::AttemptVoided { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    sim.events.iter().filter_map(reason).collect()
}

fn scored_groups(sim: &Sim) -> usize {
    match sim.effects.front() {
        Some(Effect::Score { groups, .. }) => groups.len(),
        other => panic!("nothing to score: {other:?}"),
    }
}

#[test]
fn inv_4_a_step_is_scored_again_only_after_a_failure_and_at_most_three_times() {
    let mut sim = start(spec::only_rl(1), &["w0"]);
    sim.run_to("scoring", 0);
    for _ in 0..3 {
        assert_eq!(scored_groups(&sim), 4);
        sim.drive(false);
    }
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it goes on") };
    assert!(reason.contains("scoring of step 1 failed 3 times; last: no"), "{reason}");
}

#[test]
fn a_step_in_which_nothing_trains_passes_without_an_update() {
    let mut sim = start(spec::only_rl(1), &["w0"]);
    sim.run_to("scoring", 0);
    let groups = vec![GroupVerdict::Abstained; scored_groups(&sim)];
    sim.effects.clear();
    let (step, policy, figures) = (Step(1), PolicyVersion(0), vec![("share".into(), 0.1)]);
    sim.feed(Input::Scored(Scored { step, policy, earlier: 0, groups, figures }));
    assert_eq!(sim.finish(), Outcome::Done);
    let passed = sim.events.iter().find_map(|e| match e {
        Event::StepCommitted { trained, policy, figures, .. } => {
            Some((*trained, *policy, figures["share"]))
        }
        _ => None,
    });
    assert_eq!(passed, Some((0, PolicyVersion(0), 0.1)));
    assert!(sim.records.iter().any(|r| matches!(r, Record::Commit { step: Step(1), .. })));
}

// Verdicts of a step that was rolled back in the meantime could carry another policy's candidates.
#[test]
fn verdicts_that_do_not_belong_to_the_groups_are_not_trained_on() {
    let mut sim = start(spec::only_rl(1), &["w0"]);
    sim.run_to("scoring", 0);
    let (step, policy, groups) = (Step(1), PolicyVersion(0), vec![GroupVerdict::NoVariance]);
    sim.feed(Input::Scored(Scored { step, policy, earlier: 0, groups, figures: Vec::new() }));
    assert_eq!(sim.core.view(sim.now).phase, "scoring");
    assert_eq!(sim.finish(), Outcome::Done);
}

#[test]
fn groups_are_split_over_the_ranks_and_none_is_lost() {
    let mut sim = start(spec::only_rl(1), &["w0", "w1"]);
    sim.run_to("updating", 0);
    let shares: Vec<usize> = ["w0", "w1"]
        .iter()
        .map(|worker| match sim.pull(worker) {
            Order::Update { share: Share::Grpo { groups, .. }, .. } => groups.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shares, [2, 2]);
}

#[test]
fn inv_2_a_ballot_that_disagrees_voids_the_attempt_and_names_the_odd_rank() {
    let mut sim = start(spec::only_rl(1), &["w0", "w1"]);
    sim.run_to("updating", 0);
    sim.workers.get_mut(&"w1".into()).expect("joined").trouble = Some(Trouble::OtherGradient);
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(voided(&sim), ["w1 reduced another gradient than w0"]);
    let commit = sim.records.iter().find_map(|r| match r {
        Record::Commit { attempt, generation, .. } => Some((*attempt, *generation)),
        _ => None,
    });
    assert_eq!(commit, Some((Attempt(2), Generation(2))));
}

#[test]
fn a_gradient_that_is_never_finite_fails_the_run_and_names_the_learning_rate() {
    let mut sim = start(spec::only_rl(1), &["w0"]);
    for _ in 0..2 {
        sim.run_to("updating", 0);
        sim.workers.get_mut(&"w0".into()).expect("joined").trouble = Some(Trouble::NonFinite);
        sim.act(&"w0".into());
        sim.act(&"w0".into());
    }
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it goes on") };
    assert!(reason.contains("optimizer.lr"), "{reason}");
}

#[test]
fn a_step_voided_too_often_fails_the_run() {
    let mut sim = start(RunSpec { max_attempts: 2, ..spec::only_rl(1) }, &["w0"]);
    for _ in 0..2 {
        sim.run_to("updating", 0);
        sim.workers.get_mut(&"w0".into()).expect("joined").trouble = Some(Trouble::Collective);
        sim.act(&"w0".into());
        sim.act(&"w0".into());
    }
    let Some(Outcome::Failed { reason }) = sim.core.finished() else { panic!("it goes on") };
    assert!(reason.contains("step 1 was voided 2 times"), "{reason}");
}

// The groups were scored once; drawing or scoring them again would waste the step's dearest part.
#[test]
fn a_worker_lost_in_an_update_costs_an_attempt_and_no_groups() {
    let mut sim = start(spec::only_rl(2), &["w0", "w1"]);
    sim.run_to("updating", 0);
    let sentence = sim.core.explain(sim.now);
    assert_eq!(sentence, "update of step 1: waiting on w0, w1 (ballot), 3 s left");
    let scorings = sim.scorer.scorings;
    sim.kill(&"w0".into(), true);
    sim.run_to("updating", 0);
    assert_eq!(sim.scorer.scorings, scorings);
    assert_eq!(voided(&sim), ["w0 lost: its process ended"]);
    assert_eq!(sim.finish(), Outcome::Done);
    assert_eq!(sim.committed_steps(), [1, 2]);
}

#[test]
fn a_worker_lost_in_a_commit_gets_the_new_weights_from_the_others() {
    let mut sim = start(spec::only_rl(4), &["w0", "w1"]);
    sim.run_to("committing", 1);
    sim.kill(&"w0".into(), true);
    sim.run_until(100, |sim| sim.core.view(sim.now).phase == "rollout");
    assert_eq!(sim.core.view(sim.now).policy, PolicyVersion(1));
    sim.join("w0");
    sim.run_to("restoring", 2);
    let Order::Restore(Restore { policy, source, .. }) = sim.pull("w0") else {
        panic!("w0 holds nothing")
    };
    assert_eq!((policy, source), (PolicyVersion(2), RestoreSource::Peer { root: 1 }));
}

// Nobody applied what is on record: only a loud step back keeps record and weights together.
#[test]
fn weights_that_nobody_holds_any_more_are_rolled_back_loudly() {
    let mut sim = start(spec::only_rl(4), &["w0"]);
    sim.run_to("committing", 3);
    sim.kill(&"w0".into(), true);
    sim.join("w1");
    sim.run_to("rollout", 2);
    let back = sim.events.iter().find_map(|e| match e {
        Event::RolledBack { from, to, .. } => Some((*from, *to)),
        _ => None,
    });
    assert_eq!(back, Some((Step(3), Step(2))));
    assert_eq!(sim.finish(), Outcome::Done);
    sim.checker.complete(4);
}

// A worker cut off before a rollback still holds a version of that number, but not those weights.
#[test]
fn weights_from_before_a_rollback_are_not_taken_for_the_current_ones() {
    let mut sim = start(spec::only_rl(4), &["w0"]);
    sim.run_to("committing", 3);
    sim.act(&"w0".into());
    let cut_off = sim.tag("w0");
    sim.feed(Input::Gone(cut_off));
    sim.workers.get_mut(&"w0".into()).expect("joined").alive = false;
    sim.join("w1");
    sim.run_to("committing", 3);
    sim.kill(&"w1".into(), true);
    sim.workers.get_mut(&"w0".into()).expect("joined").alive = true;
    sim.rejoin(&"w0".into());
    sim.run_to("rollout", 2);
    assert_eq!(sim.finish(), Outcome::Done);
    sim.checker.complete(4);
}

#[test]
fn a_ballot_for_another_attempt_or_step_is_turned_away() {
    let mut sim = start(spec::only_rl(2), &["w0"]);
    sim.run_to("updating", 0);
    sim.act(&"w0".into());
    let ballot = sim.workers[&"w0".into()].unsent.clone().expect("a ballot");
    let stale = Envelope { attempt: Attempt(2), ..ballot.clone() };
    assert_eq!(sim.send(stale), Err(Rejection::StaleAttempt));
    let stale = Envelope { step: Step(2), ..ballot.clone() };
    assert_eq!(sim.send(stale), Err(Rejection::StaleStep));
    let stale = Envelope { generation: Generation(0), ..ballot.clone() };
    assert_eq!(sim.send(stale), Err(Rejection::StaleGeneration));
    assert_eq!(sim.send(ballot.clone()), Ok(()));
    assert_eq!(sim.send(ballot), Err(Rejection::Duplicate));
}

// Weights that lie in the checkpoint need no step back, even when everyone is lost.
#[test]
fn a_step_goes_on_from_a_checkpoint_of_the_same_version() {
    let mut sim = start(spec::only_rl(4), &["w0"]);
    sim.run_to("updating", 2);
    let scorings = sim.scorer.scorings;
    sim.kill(&"w0".into(), true);
    sim.join("w1");
    sim.run_to("updating", 2);
    assert_eq!(sim.scorer.scorings, scorings, "the scored groups are kept");
    assert!(!sim.events.iter().any(|e| matches!(e, Event::RolledBack { .. })));
}

#[test]
fn moments_start_from_zero_once_a_stage() {
    let mut sim = start(spec::whole(), &["w0"]);
    let mut resets = Vec::new();
    for step in 1..=6 {
        sim.run_to("committing", step);
        if let Order::Apply { reset_moments, lr, .. } = sim.pull("w0") {
            resets.push(reset_moments);
            assert!(lr > 0.0);
        }
        sim.act(&"w0".into());
    }
    assert_eq!(resets, [true, false, true, false, false, false]);
}

// Steps without an update change nothing that a checkpoint of them could tell apart from a trained stage:
// it has to say so itself, or the stage would start on the moments of the one before.
#[test]
fn moments_start_from_zero_also_after_a_restart_among_passed_steps() {
    let mut sim = start(spec::whole(), &["w0"]);
    sim.scorer.quiet_every = 1;
    sim.run_to("rollout", 4);
    sim.scorer.quiet_every = 0;
    sim.restart_coordinator();
    sim.run_to("committing", 5);
    let Order::Apply { reset_moments, .. } = sim.pull("w0") else { panic!("an optimizer step") };
    assert!(reset_moments);
}
