//! `plan`, and the refusal of `launch`, through the real binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A model directory without weights, a question with an image, and a run that adapts on it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a folder"));
        let model = bench.path("model");
        fs::create_dir(&model).expect("a folder");
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/demo/tiny-qwen2.5-vl");
        for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
            fs::copy(tiny.join(name), model.join(name)).expect("a file");
        }
        image::GrayImage::new(336, 336).save(bench.path("scan.png")).expect("an image");
        let line = r#"{"id": 1, "image": "scan.png", "question": "Which organ is this?"}"#;
        fs::write(bench.path("data.jsonl"), line).expect("a file");
        let text = r#"
            run.name = "bench"
            model.path = "model"
            data.it = { path = "data.jsonl", format = "jsonl" }
            cluster.workers = 2
            [[stage]]
            kind = "rl"
            name = "adapt"
            data = "it"
            steps = 3
            questions = 8
            rollout = { n = 4, max_new_tokens = 10 }
            "#;
        fs::write(bench.path("run.toml"), text).expect("a file");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_medevo-coord"))
            .current_dir(self.0.path())
            .args(arguments)
            .output()
            .expect("the binary runs")
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_plan_shows_memory_and_tokens() {
    let bench = Bench::new();
    let plan = bench.run(&["plan", "run.toml", "--device-memory", "4GiB"]);
    let text = out(&plan);
    assert_eq!(plan.status.code(), Some(0), "{text}{}", err(&plan));
    for word in ["weights", "moments", "reference weights", "during rollout", "fits in 4.0 GiB"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    // 336 pixels are 24 × 24 patches, 144 tokens, beside 24 of the template, 2 marks and 20 / 3 of the question.
    assert!(
        text.contains("adapt: prompts of 177 (at most 177), rollout 1416 + up to 320"),
        "{text}"
    );
    let plan = bench.run(&["plan", "run.toml", "--device-memory", "4GiB", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out(&plan)).expect("JSON");
    assert_eq!(json["memory"], 4u64 << 30);
    assert_eq!(json["workers"], 2);
    assert!(json["peak"].as_u64().is_some_and(|peak| peak < 4 << 30));
}

#[test]
fn a_plan_that_does_not_fit_says_what_would_help() {
    let bench = Bench::new();
    let plan = bench.run(&["plan", "run.toml", "--device-memory", "830MiB"]);
    let text = out(&plan);
    assert_eq!(plan.status.code(), Some(2), "{text}{}", err(&plan));
    assert!(text.contains("does not fit: a worker needs"), "{text}");
    assert!(text.contains("the largest part is libraries"), "{text}");
    assert!(text.contains("train.recompute = true  (-"), "{text}");
    let wrong = bench.run(&["plan", "run.toml", "--device-memory", "much"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("write for example 80GiB"));
}

/// Broken, hours of a cluster end in "out of memory" at the first update.
#[test]
fn launch_refuses_what_does_not_fit_unless_told() {
    let bench = Bench::new();
    // Weights that look complete: only their headers are read before a start.
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.extend([0; 4]);
    fs::write(bench.path("model/model.safetensors"), weights).expect("a file");
    let small = ["launch", "run.toml", "--dry-run", "--set", "cluster.device_memory_gib=0.8"];
    let refused = bench.run(&small);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    let said = err(&refused);
    assert!(said.contains("the run does not fit: a worker needs"), "{said}");
    assert!(said.contains("--ignore-memory"), "{said}");
    assert!(!bench.path("runs").exists(), "nothing is made");
    let forced = bench.run(&[&small[..], &["--ignore-memory"]].concat());
    assert_eq!(forced.status.code(), Some(0), "{}", err(&forced));
    let fits =
        bench.run(&["launch", "run.toml", "--dry-run", "--set", "cluster.device_memory_gib=8"]);
    assert_eq!(fits.status.code(), Some(0), "{}", err(&fits));
}

/// The adapter's own directory says nothing of the model's shape.
#[test]
fn a_plan_of_an_adapter_reads_the_model_under_it() {
    let bench = Bench::new();
    fs::create_dir(bench.path("adapter")).expect("a directory");
    let config = format!(r#"{{"base_model_name_or_path": {:?}}}"#, bench.path("model"));
    fs::write(bench.path("adapter/adapter_config.json"), config).expect("a file");
    let header = br#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
    let tensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(bench.path("adapter/adapter_model.safetensors"), tensors).expect("a file");
    let plan = bench.run(&[
        "plan",
        "run.toml",
        "--device-memory",
        "4GiB",
        "--set",
        "model.path=adapter",
        "--set",
        "lora.rank=8",
    ]);
    let text = out(&plan);
    assert_eq!(plan.status.code(), Some(0), "{text}{}", err(&plan));
    assert!(!text.contains("reference weights"), "the base is in memory already:\n{text}");
}
