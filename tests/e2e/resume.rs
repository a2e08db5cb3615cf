//! INV-7: a run that was interrupted and resumed equals one that never was: every figure of every step, the
//! weights and the optimizer's moments, bit for bit. `make resume-table` tries every row and shows the table; a
//! test run tries some of them.
//!
//! The label-free stage asks 6 of 18 questions a step, so an epoch is three steps long: 5 to 7 and 8 to 10.
//! Checkpoints are written after step 7 and at the stages' ends.

use std::{collections::BTreeMap, path::Path, process::Command};

use medevo_tests::{
    history::{History, State},
    lab::{Lab, STEPS},
    process::finish,
};
use serde_json::{Value, json};

const SETTINGS: [&str; 3] =
    ["data.target.limit=18", "checkpoint.every_steps=7", "engine.threads=1"];

/// How a run is interrupted.
#[derive(Clone, Copy)]
enum By {
    /// `kill -9` of the coordinator on entering the phase.
    Kill,
    /// Ctrl-C in that phase; the run drains.
    CtrlC,
}

/// Where ("phase@step"), in words, and how.
type Interruption = (&'static str, &'static str, By);

/// In every test run.
const SOME: [Interruption; 4] = [
    ("checkpointing@4", "end of the supervised stage", By::Kill),
    ("committing@6", "middle of an epoch", By::CtrlC),
    ("committing@7", "last step of an epoch", By::Kill),
    ("committing@7", "last step of an epoch", By::CtrlC),
];
/// In the table (ALL=1) too.
const FURTHER: [Interruption; 5] = [
    ("updating@2", "in the supervised stage", By::CtrlC),
    ("evaluating@4", "between two stages", By::CtrlC),
    ("rollout@5", "first label-free step", By::Kill),
    ("scoring@6", "middle of an epoch", By::Kill),
    ("rollout@8", "first step of an epoch, after a checkpoint", By::Kill),
];

fn interruptions() -> Vec<Interruption> {
    let further = if std::env::var_os("ALL").is_some() { &FURTHER[..] } else { &[] };
    SOME.iter().chain(further).copied().collect()
}

#[test]
fn one_worker() {
    compare(1, &[], &interruptions());
}

#[test]
fn two_workers() {
    compare(2, &[], &interruptions());
}

/// Two optimizer steps a rollout: Ctrl-C before the first of them waits for the second.
#[test]
fn two_steps_a_rollout() {
    let set = ["stage.adapt.objective.num_iterations=2", "stage.adapt.objective.clip_high=0.28"];
    let interruptions = [
        ("updating@7", "first of two steps a rollout", By::CtrlC),
        ("committing@8", "second of them", By::Kill),
    ];
    compare(2, &set, &interruptions);
}

/// What a run ends with.
struct End {
    figures: BTreeMap<String, Value>,
    weights: State,
    moments: State,
}

impl End {
    fn of(run_dir: &Path) -> Self {
        let history = History::read(run_dir);
        history.check(STEPS);
        history.check_digests();
        let mut figures: BTreeMap<String, Value> = history
            .committed()
            .into_iter()
            .map(|(step, event)| {
                let told = ["stage", "stage_step", "policy", "lr", "trained", "figures"];
                let told = told.map(|key| event[key].clone());
                (format!("step {step:02}"), json!(told))
            })
            .collect();
        for event in history.of("evaluated") {
            let mut event = event.clone();
            event.as_object_mut().expect("an object").remove("time");
            figures
                .insert(format!("{} {} {}", event["stage"], event["pass"], event["step"]), event);
        }
        let state = history.last_state(run_dir);
        let (moments, weights): (State, State) =
            state.into_iter().partition(|(name, _)| name.starts_with("optimizer"));
        assert!(!moments.is_empty() && !weights.is_empty(), "the last checkpoint holds both");
        Self { figures, weights, moments }
    }
}

/// Runs once without and once with each interruption, prints a row for each, and fails unless all are equal.
fn compare(workers: usize, set: &[&str], interruptions: &[Interruption]) {
    let lab = Lab::new();
    let launch = |name: &str| -> Command {
        let mut command = lab.launch(name, workers);
        for setting in SETTINGS.iter().chain(set) {
            command.args(["--set", setting]);
        }
        command
    };
    let _ = finish(launch("whole")).expect_code(0);
    let whole = End::of(&lab.run_dir("whole"));
    let mut rows = Vec::new();
    let mut all_equal = true;
    for (point, words, by) in interruptions {
        let (how, name) = match by {
            By::Kill => ("kill -9", format!("{}-killed", point.replace('@', "-"))),
            By::CtrlC => ("Ctrl-C", format!("{}-drained", point.replace('@', "-"))),
        };
        let _ = match by {
            By::Kill => lab.killed_and_resumed(&name, launch(&name), point, workers),
            By::CtrlC => lab.drained_and_resumed(&name, launch(&name), point, workers),
        };
        let end = End::of(&lab.run_dir(&name));
        let equal = [
            end.figures == whole.figures,
            end.weights == whole.weights,
            end.moments == whole.moments,
        ];
        all_equal &= equal == [true; 3];
        let [figures, weights, moments] = equal.map(|equal| if equal { "equal" } else { "DIFFER" });
        rows.push(format!(
            "| {words} ({point}) | {how} | {workers} | {figures} | {weights} | {moments} |"
        ));
    }
    println!(
        "| interrupted | by | workers | figures | weights | moments |\n|---|---|---|---|---|---|"
    );
    println!("{}", rows.join("\n"));
    assert!(all_equal, "a resumed run differs:\n{}", rows.join("\n"));
}
