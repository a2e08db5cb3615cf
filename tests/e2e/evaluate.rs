//! `evaluate`: measuring a model directory, without a run file.

use medevo_tests::{
    lab::Lab,
    process::{coord, finish, must, processes_naming},
};

/// Fails when a model cannot be measured from the command line, or the answers are not kept.
#[test]
fn a_model_is_measured_from_the_command_line() {
    let lab = Lab::new();
    let (model, data, kept) = (lab.path("model"), lab.path("data/target"), lab.path("kept"));
    let evaluate = || {
        let mut c = coord(["evaluate", "--model", &model, "--data", &data, "--format", "slake"]);
        c.args(["--max-new-tokens", "6", "--run-dir", &kept]);
        c
    };
    let mut refused = evaluate();
    refused.args(["--split", "no-such-split"]);
    let refused = finish(refused).expect_code(2);
    assert!(refused.stderr.contains("no-such-split"), "{}", refused.said());
    assert!(!lab.run_dir("kept").exists(), "nothing half-written");

    let mut measured = evaluate();
    measured.args(["--limit", "8", "--majority", "3", "--workers", "2"]);
    let said = must(measured);
    for words in ["greedy: n 8, accuracy", "maj@3: n 8, accuracy", "protocol strict"] {
        assert!(said.stdout.contains(words), "{words:?}: {}", said.said());
    }
    let answers = std::fs::read_dir(lab.run_dir("kept").join("evaluations")).expect("a folder");
    assert_eq!(answers.count(), 2, "one file a pass");
    assert_eq!(processes_naming(&lab.run_dir("kept")), Vec::<String>::new());
}
