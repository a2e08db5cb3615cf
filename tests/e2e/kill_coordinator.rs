//! `kill -9` of a coordinator, whose workers go with it: `resume` carries on from the last checkpoint and ends
//! with the weights of a run that was never interrupted (INV-7).

use std::path::Path;

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
};

fn weights(run_dir: &Path) -> Vec<u8> {
    History::read(run_dir).last_weights(run_dir)
}

/// Where `resume.rs` does not kill; the kill matrix has every phase, with workers that live on.
#[test]
fn before_and_between_checkpoints() {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = weights(&lab.run_dir("whole"));
    for point in ["forming@0", "restoring@0", "updating@8", "checkpointing@6"] {
        let name = point.replace('@', "-");
        let resumed = lab.killed_and_resumed(&name, lab.launch(&name, 2), point, 2);
        let dir = lab.run_dir(&name);
        History::read(&dir).check(STEPS);
        assert!(weights(&dir) == whole, "{point}: other weights\n{}", resumed.said());
    }
}
