//! Which checkpoints may go: whatever the rule, what a run needs to go on stays.

mod fleet;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medevo_common::config::BestIs;
use medevo_coord::driver::{Retention, expired, resolve};
use medevo_core::api::{CheckpointRef, Position, RunSpec};
use medevo_types::{Digest, PolicyVersion, Step};
use proptest::prelude::*;

/// Two training stages of six and eight steps, with an evaluation between them.
fn spec() -> RunSpec {
    let config = fleet::config(
        r#"
        [[stage]]
        kind = "sft"
        name = "warm"
        data = "source"
        steps = 6
        batch = 4
        [[stage]]
        kind = "evaluate"
        name = "between"
        data = ["target"]
        [[stage]]
        kind = "rl"
        name = "adapt"
        data = "target"
        steps = 8
        questions = 4
    "#,
    );
    let datasets = [fleet::dataset("source", "liver"), fleet::dataset("target", "heart")];
    resolve(&config, &datasets, "checkpoints".as_ref()).expect("a run that makes sense").spec
}

const STEPS: u64 = 14;

fn dir(step: u64) -> PathBuf {
    PathBuf::from(format!("checkpoints/step-{step:06}"))
}

/// The checkpoint after a step; those of the rl stage have the sft stage's last one as their reference.
fn checkpoint(step: u64) -> CheckpointRef {
    let (stage, done) = match step {
        0..6 => (0, step),
        6 => (1, 0),
        STEPS.. => (3, 0),
        _ => (2, step - 6),
    };
    CheckpointRef {
        dir: dir(step),
        step: Step(step),
        policy: PolicyVersion(step),
        position: Position { stage, done, extra: 0 },
        holding: Digest(format!("weights {step}")),
        reference: (stage == 2).then(|| dir(6)),
        untrained: false,
    }
}

fn rule() -> impl Strategy<Value = Retention> {
    let best_is = prop_oneof![Just(BestIs::Max), Just(BestIs::Min)];
    (0_usize..5, 0_u64..6, 0_usize..4, best_is).prop_map(
        |(keep, keep_every, keep_best, best_is)| Retention { keep, keep_every, keep_best, best_is },
    )
}

proptest! {
    /// Fails when a run could not go on, or could not be told what a rule promises, after old checkpoints went.
    #[test]
    fn what_is_needed_or_promised_stays(
        steps in prop::collection::btree_set(1_u64..=STEPS, 1..STEPS as usize),
        rule in rule(),
        scores in prop::collection::btree_map(1_u64..=STEPS, -1.0_f64..1.0, 0..STEPS as usize),
    ) {
        let published: Vec<CheckpointRef> = steps.iter().map(|step| checkpoint(*step)).collect();
        let scores: BTreeMap<Step, f64> = scores.into_iter().map(|(s, x)| (Step(s), x)).collect();
        let gone: BTreeSet<PathBuf> =
            expired(&published, &spec(), &rule, &scores).into_iter().collect();
        let stands = |step: u64| steps.contains(&step) && !gone.contains(&dir(step));

        let pointer = *steps.last().expect("at least one");
        prop_assert!(stands(pointer), "the pointer's checkpoint");
        for end in [6, STEPS] {
            prop_assert!(stands(end) || !steps.contains(&end), "a stage's last, step {end}");
        }
        for standing in published.iter().filter(|c| stands(c.step.0)) {
            if let Some(reference) = &standing.reference {
                prop_assert!(!gone.contains(reference), "a KL reference that is named");
            }
        }
        for newest in steps.iter().rev().take(rule.keep) {
            prop_assert!(stands(*newest), "one of the newest {}: step {newest}", rule.keep);
        }
        for step in steps.iter().filter(|s| rule.keep_every > 0 && s.is_multiple_of(rule.keep_every)) {
            prop_assert!(stands(*step), "every {}-th: step {step}", rule.keep_every);
        }
        // No checkpoint that went is better than the worst of as many as are to be kept.
        let sign = if rule.best_is == BestIs::Max { 1.0 } else { -1.0 };
        let better = |a: u64, b: u64| {
            matches!((scores.get(&Step(a)), scores.get(&Step(b))), (Some(a), Some(b)) if sign * a > sign * b)
        };
        for lost in steps.iter().filter(|step| gone.contains(&dir(**step))) {
            let above = steps.iter().filter(|other| better(**other, *lost)).count();
            let has_score = scores.contains_key(&Step(*lost));
            prop_assert!(!has_score || above >= rule.keep_best, "step {lost} was among the best");
        }
        // What went once may go at once: the rule does not depend on what it has deleted.
        let left: Vec<CheckpointRef> =
            published.iter().filter(|c| !gone.contains(&c.dir)).cloned().collect();
        prop_assert_eq!(expired(&left, &spec(), &rule, &scores), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_score_that_is_no_number_makes_no_checkpoint_the_best() {
    let published: Vec<CheckpointRef> = [1, 2, 3, 4].map(checkpoint).into();
    let rule = Retention { keep: 1, keep_every: 0, keep_best: 1, best_is: BestIs::Max };
    let scores = [(1, 0.5), (2, f64::NAN), (3, f64::INFINITY)].map(|(s, x)| (Step(s), x)).into();
    assert_eq!(expired(&published, &spec(), &rule, &scores), [dir(2), dir(3)]);
}
