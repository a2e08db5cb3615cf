//! `make bench SMOKE=1`: the bench at its smallest. How fast anything is, no test asks.

use std::process::{Command, Stdio};

use medevo_tests::{
    lab::checkout,
    process::{binary, finish},
};

/// Runs one case of `ops/bench` and looks for its two sides in the table.
fn beside(case: &str, peer: &str) {
    let python = checkout().join(".peers/bin/python");
    assert!(python.exists(), "{} is missing: run `make test`, which makes it", python.display());
    let binaries = binary("medevo-worker").parent().expect("it lies in a folder").to_owned();
    let bench = binaries.join("examples/bench");
    assert!(bench.exists(), "{} is not built: run `make test`", bench.display());
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(python);
    command.arg(checkout().join("ops/bench/run"));
    command.args(["--smoke", "--threads", "1", "--case", case]);
    command.arg("--binaries").arg(binaries).arg("--work").arg(work.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(command).expect_code(0);
    for word in [&format!("| {case} "), "| medevo ", &format!("| {peer} "), "peak MiB"] {
        assert!(said.stdout.contains(word), "{word:?} is in the table: {}", said.said());
    }
}

/// Fails when a change of the engine or of TRL breaks the comparison: other prompts, other token counts, a step
/// that does not run, a table that cannot be made.
#[test]
fn a_step_runs_beside_trl() {
    beside("smoke", "TRL");
}

/// The same for drawing alone, beside transformers' generate.
#[test]
fn a_rollout_runs_beside_transformers() {
    beside("smoke-rollout", "transformers");
}
