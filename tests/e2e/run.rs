//! A whole run, as a user starts it.

use std::{collections::BTreeMap, path::Path};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{coord, must, processes_naming},
};
use serde_json::Value;

/// Fails when any part of the run directory that the README promises is missing, or when a process
/// stays behind.
#[test]
fn a_run_leaves_what_is_promised() {
    let lab = Lab::new();
    let said = lab.run("run", 2);
    let dir = lab.run_dir("run");
    History::read(&dir).check(STEPS);
    for name in ["run.toml", "events.jsonl", "report.html", "status.json", "checkpoints"] {
        assert!(dir.join(name).exists(), "{name} is missing\n{}", said.said());
    }
    let checkpoint = dir.join(format!("checkpoints/step-{STEPS:06}"));
    for name in ["config.json", "tokenizer.json", "manifest.json"] {
        assert!(checkpoint.join(name).exists(), "{name} is missing in the last checkpoint");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&dir).expect("the run directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "patient texts are for the owner alone");
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");

    let status = must(coord(["status", &dir.to_string_lossy(), "--json"]));
    let status: Value = serde_json::from_str(&status.stdout).expect("status is JSON");
    assert!(status.to_string().contains("finished"), "{status}");
    let report = std::fs::read_to_string(dir.join("report.html")).expect("the report");
    assert!(!report.contains("http://") || !report.contains("<script src"), "self-contained");
    assert!(report.contains("base") && report.contains("adapted"));
}

/// Fails when the number of workers leaks into what is drawn or into the loss.
#[test]
fn one_two_and_three_workers_agree() {
    let lab = Lab::new();
    let runs: Vec<_> = [1, 2, 3]
        .map(|n| {
            let name = format!("with-{n}");
            let _ = lab.run(&name, n);
            lab.run_dir(&name)
        })
        .into();
    let first_rl = 5;
    let drawn: Vec<_> = runs.iter().map(|d| candidates(d, first_rl)).collect();
    assert!(!drawn[0].is_empty(), "the first label-free step drew something");
    assert_eq!(drawn[0], drawn[1], "candidates of 1 and 2 workers");
    assert_eq!(drawn[0], drawn[2], "candidates of 1 and 3 workers");
    let losses: Vec<_> = runs.iter().map(|d| History::read(d).figure("loss")).collect();
    for (step, loss) in &losses[0] {
        // From the first label-free update on a low bit may flip a draw; until then all is equal.
        if *step <= first_rl {
            for other in &losses[1..] {
                let difference = (loss - other[step]).abs();
                assert!(difference <= 1e-5, "loss of step {step}: {loss} and {}", other[step]);
            }
        }
    }
}

/// Candidates of a step: sample → sorted (text, count).
fn candidates(run_dir: &Path, step: u64) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(run_dir.join("samples.jsonl")).expect("samples.jsonl");
    text.lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("a JSON object"))
        .filter(|r| r["step"] == step)
        .map(|r| {
            let list = r["candidates"].as_array().expect("a list");
            let mut drawn: Vec<_> =
                list.iter().map(|c| format!("{} x{}", c["text"], c["count"])).collect();
            drawn.sort();
            (r["sample"].to_string(), drawn)
        })
        .collect()
}
