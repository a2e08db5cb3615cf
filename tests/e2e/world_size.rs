//! A run that is resumed on fewer or more workers goes on as if nothing had been: the same figures to 1e-5.

use std::process::Command;

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{finish, processes_naming, until},
};

/// Absolute, and relative where a figure is larger than 1.
const TOLERANCE: f64 = 1e-5;

/// Fails when what a checkpoint holds depends on how many workers wrote it.
fn resumed_on_other_numbers_of_workers(set: &[&str]) {
    let lab = Lab::new();
    let launch = |name: &str| -> Command {
        let mut command = lab.launch(name, 2);
        set.iter().for_each(|pair| {
            command.args(["--set", pair]);
        });
        command
    };
    let _ = finish(launch("whole")).expect_code(0);
    let whole = History::read(&lab.run_dir("whole"));
    for workers in [1, 3] {
        let name = format!("on-{workers}");
        let mut command = launch(&name);
        command.env("MEDEVO_COORD_FAULT", "updating@8");
        let killed = finish(command);
        assert_eq!(killed.status.code(), None, "killed by a signal: {}", killed.said());
        let dir = lab.run_dir(&name);
        until("workers die with their coordinator", || processes_naming(&dir).is_empty());
        let resumed = lab.resume(&name, workers).expect_code(0);
        let history = History::read(&dir);
        history.check(STEPS);
        let last = history.of("generation_opened").last().expect("a generation");
        let ranks = last["workers"].as_array().map_or(0, Vec::len);
        assert_eq!(ranks, workers, "{}", resumed.said());
        for figure in ["loss", "grad_norm", "reward_mean", "kl"] {
            let (expected, found) = (whole.figure(figure), history.figure(figure));
            assert_eq!(expected.len(), found.len(), "{figure}");
            for (step, expected) in expected {
                let found = found[&step];
                let off = (expected - found).abs() / expected.abs().max(1.0);
                assert!(
                    off <= TOLERANCE,
                    "{figure} of step {step} on {workers} workers: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn every_rank_with_all_of_the_optimizer() {
    resumed_on_other_numbers_of_workers(&[]);
}

#[test]
fn every_rank_with_its_part_of_the_optimizer() {
    resumed_on_other_numbers_of_workers(&["train.shard=optimizer"]);
}
