//! Runs that train adapters: kill and resume, and what can be done with the checkpoints.

use std::path::{Path, PathBuf};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{coord, finish, must, worker},
};

const LORA: &str = "\n[lora]\nrank = 4\nalpha = 8\n";

/// The small run with adapters.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.amend(|text| text.replace("lr = 2e-3", "lr = 2e-2") + LORA);
    lab
}

fn adapter(run_dir: &Path) -> PathBuf {
    History::read(run_dir).last_checkpoint(run_dir)
}

fn tensors(run_dir: &Path) -> Vec<u8> {
    std::fs::read(adapter(run_dir).join("adapter_model.safetensors")).expect("the adapter")
}

/// Fails when a resumed run trains another adapter than an uninterrupted one (INV-7), when nothing is learnt,
/// or when a checkpoint is more than the adapter.
#[test]
fn a_killed_run_resumes_to_the_same_adapter() {
    let lab = lab();
    let _ = lab.run("whole", 2);
    let whole = lab.run_dir("whole");
    let history = History::read(&whole);
    history.check(STEPS);
    let loss = history.figure("loss");
    assert!(loss[&4] < 0.9 * loss[&1], "the supervised loss falls: {loss:?}");
    let kl = history.figure("kl");
    assert!(kl[&5] > 0.0, "after a warm start the adapter is not the base: {kl:?}");
    let files = std::fs::read_dir(adapter(&whole)).expect("the checkpoint").flatten();
    let names: Vec<String> = files.map(|f| f.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name == "model.safetensors"), "{names:?}");
    assert!(names.iter().any(|name| name == "optimizer.safetensors"), "{names:?}");

    for point in ["updating@3", "committing@8"] {
        let name = point.replace('@', "-");
        let resumed = lab.killed_and_resumed(&name, lab.launch(&name, 2), point, 2);
        let dir = lab.run_dir(&name);
        History::read(&dir).check(STEPS);
        assert!(tensors(&dir) == tensors(&whole), "{point}: another adapter\n{}", resumed.said());
    }
}

/// Fails when a checkpoint cannot be measured, asked or merged, or when merging changes what it says.
#[test]
fn a_checkpoint_is_measured_asked_and_merged() {
    let lab = lab();
    let _ = lab.run("run", 1);
    let adapter = adapter(&lab.run_dir("run")).to_string_lossy().into_owned();
    let merged = lab.path("merged");
    let merge = || worker(["merge", "--adapter", &adapter, "--out", &merged]);
    let _ = must(merge());
    let again = finish(merge()).expect_code(1);
    assert!(again.stderr.contains("not empty"), "{}", again.said());
    let mut whole = worker(["merge", "--adapter", &merged, "--out", &lab.path("x")]);
    whole.args(["--base", &merged]);
    let whole = finish(whole).expect_code(1);
    assert!(whole.stderr.contains("holds no adapter"), "{}", whole.said());

    let pairs = lab.path("pairs.jsonl");
    let line = serde_json::json!({
        "image": lab.an_image(), "question": "in which organ is the lesion ?", "answer": "liver"
    });
    std::fs::write(&pairs, format!("{line}\n")).expect("written");
    let score = |flags: &[&str]| -> Vec<f64> {
        let mut command = worker(["logprobs", "--input", &pairs, "--json"]);
        command.args(flags);
        let said: serde_json::Value =
            serde_json::from_str(&must(command).stdout).expect("one line of JSON");
        let numbers = said["logprobs"].as_array().expect("a list");
        numbers.iter().map(|n| n.as_f64().expect("a number")).collect()
    };
    let (model, with_adapter) = (lab.path("model"), score(&["--model", &adapter]));
    assert_eq!(with_adapter, score(&["--model", &adapter, "--base", &model]));
    let of_base = score(&["--model", &model]);
    for ((adapted, merged), base) in
        with_adapter.iter().zip(score(&["--model", &merged])).zip(of_base)
    {
        assert!((adapted - merged).abs() < 1e-4, "{adapted} and {merged}");
        assert!((adapted - base).abs() > 1e-3, "training changed something: {adapted}, {base}");
    }

    let measure = |model: &str| {
        let mut c = coord(["evaluate", "--model", model, "--data", &lab.path("data/target")]);
        c.args(["--format", "slake", "--max-new-tokens", "6", "--limit", "8"]);
        let said = must(c).stdout;
        said.lines().find(|line| line.contains("greedy: n 8")).expect("a figure").to_owned()
    };
    assert_eq!(measure(&adapter), measure(&merged));
}

/// Fails when a run that cannot train is started all the same, or is not told what to do.
#[test]
fn what_cannot_be_trained_is_refused() {
    let lab = Lab::new();
    lab.amend(|text| format!("{text}{LORA}targets = [\"q_prj\"]\n"));
    let said = finish(lab.launch("run", 1)).expect_code(1);
    assert!(said.stderr.contains("q_prj") && said.stderr.contains("q_proj"), "{}", said.said());

    std::fs::create_dir(lab.path("adapter")).expect("a folder");
    let config = serde_json::json!({ "base_model_name_or_path": lab.path("absent") });
    let file = Path::new(&lab.path("adapter")).join("adapter_config.json");
    std::fs::write(file, config.to_string()).expect("written");
    lab.amend(|text| {
        let text = text.replace("path = \"model\"", "path = \"adapter\"");
        text.split("\n[lora]").next().expect("a beginning").to_owned()
    });
    let said = finish(lab.launch("other", 1)).expect_code(2);
    for words in ["absent", "base_model_name_or_path", "adapter_model.safetensors", "[lora]"] {
        assert!(said.stderr.contains(words), "{words:?}: {}", said.said());
    }
}
