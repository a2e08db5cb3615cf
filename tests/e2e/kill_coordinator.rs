//! `kill -9` of the coordinator in each phase: `resume` carries on from the last checkpoint and ends
//! with the weights of a run that was never interrupted (INV-7).

use std::path::Path;

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
};

/// Kills the coordinator when it enters `phase` at `step`, for each of them, and resumes.
fn kill_at(points: &[&str]) {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = weights(&lab.run_dir("whole"));
    for point in points {
        let name = point.replace('@', "-");
        let resumed = lab.killed_and_resumed(&name, lab.launch(&name, 2), point, 2);
        let dir = lab.run_dir(&name);
        History::read(&dir).check(STEPS);
        assert!(weights(&dir) == whole, "{point}: other weights\n{}", resumed.said());
    }
}

fn weights(run_dir: &Path) -> Vec<u8> {
    History::read(run_dir).last_weights(run_dir)
}

#[test]
fn before_the_first_checkpoint() {
    kill_at(&["forming@0", "restoring@0", "updating@1", "committing@2"]);
}

#[test]
fn in_the_label_free_stage() {
    kill_at(&["rollout@8", "scoring@8", "updating@8", "committing@8"]);
}

#[test]
fn while_evaluating_and_checkpointing() {
    kill_at(&["evaluating@4", "checkpointing@6", "checkpointing@10"]);
}
