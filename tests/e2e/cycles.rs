//! Two optimizer steps a rollout and dynamic sampling, in a whole run that is killed between the two steps.

use std::{collections::BTreeMap, path::Path, process::Command};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::finish,
};
use serde_json::Value;

/// A run whose small, cool groups often have nothing to say, so that dynamic sampling has something to do.
fn launch(lab: &Lab, name: &str) -> Command {
    let mut command = lab.launch(name, 2);
    for pair in [
        "stage.adapt.objective.num_iterations=2",
        "stage.adapt.objective.clip_high=0.28",
        "stage.adapt.dynamic_sampling_rounds=2",
        "stage.adapt.rollout.n=3",
        "stage.adapt.rollout.temperature=0.2",
    ] {
        command.args(["--set", pair]);
    }
    command
}

/// Weights and figures that a run ends with.
fn result(run_dir: &Path) -> (Vec<u8>, BTreeMap<u64, Value>) {
    let history = History::read(run_dir);
    history.check(STEPS);
    let steps = history.committed().into_iter();
    let figures = steps.map(|(step, event)| (step, event["figures"].clone())).collect();
    (history.last_weights(run_dir), figures)
}

#[test]
fn a_dry_run_says_how_often_a_rollout_is_used() {
    let lab = Lab::new();
    let mut command = launch(&lab, "dry");
    command.arg("--dry-run");
    let said = finish(command).expect_code(0).stdout;
    for words in [
        "6 of 24 questions a rollout, 3 candidates each",
        "2 steps a rollout, 3 rollouts",
        "dynamic sampling: up to 2 further rounds of questions a rollout",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// INV-7: scored groups and the place in the questions' order lie in no checkpoint but at a cycle's end, so a
/// coordinator that dies between the two steps must find its way back to the rollout before them.
#[test]
fn a_coordinator_killed_in_the_middle_of_a_cycle_resumes_to_the_same_weights() {
    let lab = Lab::new();
    let _ = finish(launch(&lab, "whole")).expect_code(0);
    let whole = result(&lab.run_dir("whole"));

    let history = History::read(&lab.run_dir("whole"));
    // Steps 5 to 10 adapt.
    assert_eq!(
        history.figure("iteration").into_iter().collect::<Vec<_>>(),
        [(5, 1.0), (6, 2.0), (7, 1.0), (8, 2.0), (9, 1.0), (10, 2.0)]
    );
    let rounds = history.figure("rounds");
    assert!(rounds.values().any(|rounds| *rounds > 1.0), "nothing was drawn anew: {rounds:?}");
    for (step, ratio) in history.figure("ratio_mean") {
        // At the weights that drew them the ratio is 1 but for rounding; after a step it is not.
        assert_eq!((ratio - 1.0).abs() < 1e-4, step % 2 == 1, "step {step}: ratio {ratio}");
    }
    let published: Vec<u64> = history
        .of("checkpoint_published")
        .map(|event| event["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(published, [3, 4, 6, 10], "step 9 is due in the middle of a cycle");

    for point in ["updating@8", "committing@7"] {
        let name = point.replace('@', "-");
        let resumed = lab.killed_and_resumed(&name, launch(&lab, &name), point, 2);
        let dir = lab.run_dir(&name);
        let (weights, figures) = result(&dir);
        assert_eq!(figures, whole.1, "{point}: other figures\n{}", resumed.said());
        assert!(weights == whole.0, "{point}: other weights\n{}", resumed.said());
    }
}
