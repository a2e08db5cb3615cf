//! What medevo-memory predicts against what a process really takes: rollout, update and apply of small models, each
//! in a process of its own, since memory that one run has freed would be there for the next.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

mod common;

use std::{fs, path::Path, process::Command};

use common::{apply_work, groups, grpo, unit, update_work, write_bmp};
use medevo_collective::Solo;
use medevo_engine::Engine;
use medevo_memory::{Estimate, Job, Place, Row, Shape};
use medevo_model::{ModelConfig, Qwen25Vl};
use medevo_types::{
    PolicyVersion, SampleId,
    messages::{EngineSetup, Prompt, RestoreSource, TrainAnswer},
    settings::{Dtype, Objective, Sampling, TrainSettings},
};
use serde_json::{Value, json};
use tch::Device;

/// Which run the child process measures.
const CASE: &str = "MEDEVO_MEMORY_CASE";
/// How far a prediction may be off.
const TOLERANCE: f64 = 0.25;

/// A run: what is large in it.
struct Case {
    name: &'static str,
    dtype: Dtype,
    freeze_vision: bool,
    /// Edge of the images, pixels; 0 for none.
    edge: u32,
    /// Tokens of an answer.
    answer: usize,
    rows: usize,
}

const CASES: [Case; 3] = [
    Case { name: "text", dtype: Dtype::F32, freeze_vision: true, edge: 0, answer: 60, rows: 5 },
    Case {
        name: "images",
        dtype: Dtype::F32,
        freeze_vision: false,
        edge: 224,
        answer: 12,
        rows: 5,
    },
    Case { name: "half", dtype: Dtype::Bf16, freeze_vision: false, edge: 224, answer: 20, rows: 4 },
];
const ANSWERS: usize = 4;

/// Too high, and runs are refused that would fit; too low, and they end when the memory does.
#[test]
fn what_is_predicted_is_what_is_taken() {
    for case in CASES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "measured_alone", "--nocapture"])
            .env(CASE, case.name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        let figure = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        let (predicted, taken) = (figure("predicted"), figure("taken"));
        println!("{}: predicted {predicted:.0} MiB, taken {taken:.0} MiB", case.name);
        let ratio = predicted / taken;
        assert!((ratio - 1.0).abs() <= TOLERANCE, "{}: {predicted} for {taken} MiB", case.name);
    }
}

#[test]
fn measured_alone() {
    let Ok(name) = std::env::var(CASE) else { return };
    let case = CASES.into_iter().find(|case| case.name == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let setup = prepare(dir.path(), &case);
    let before = resident("VmRSS:");
    let mut engine = Engine::new(&setup, Device::Cpu).unwrap();
    let source = RestoreSource::Model { dir: setup.model.clone() };
    engine.restore(&source, PolicyVersion(0), &mut Solo).unwrap();

    let prompts: Vec<Prompt> =
        (0..case.rows).map(|number| prompt(dir.path(), &case, number)).collect();
    let sampling = Sampling { n: ANSWERS, max_new_tokens: case.answer, ..Sampling::default() };
    let drawn = engine.rollout(&unit(prompts.clone(), sampling)).unwrap();
    let mut groups = groups(prompts);
    for group in &mut groups {
        let answer = |first: u32| {
            let ids: Vec<u32> =
                (0..case.answer as u32).map(|i| 40 + (first * 7 + i) % 90).collect();
            let logprobs = vec![-1.0; ids.len()];
            TrainAnswer { ids, count: 1, advantage: f64::from(first) - 1.5, logprobs }
        };
        group.answers = (0..ANSWERS as u32).map(answer).collect();
    }
    let batch = grpo(groups, Objective::default(), dir.path().join("model"));
    engine.update(&update_work(0, batch), &mut Solo).unwrap();
    engine.apply(&apply_work(0), &mut Solo).unwrap();
    let taken = resident("VmHWM:") - before;

    let patches = u64::from(case.edge / 14).pow(2);
    let row = Row {
        prompt: u64::from(drawn[0].prompt_tokens),
        patches,
        answers: ANSWERS as u64,
        answer: case.answer as u64,
    };
    let job = Job {
        place: Place::Cpu,
        dtype: case.dtype,
        freeze_vision: case.freeze_vision,
        train: TrainSettings::default(),
        lora: None,
        workers: 1,
        tokens_per_batch: setup.tokens_per_batch as u64,
        reference: true,
        update: Some((row, case.rows as u64)),
        rollout: Some((row, case.rows as u64)),
        image_tokens: patches / 4 * case.rows as u64,
    };
    let config = fs::read(setup.model.join("config.json")).unwrap();
    let shape = Shape::from_json(&serde_json::from_slice::<Value>(&config).unwrap()).unwrap();
    let estimate = Estimate::new(&shape, &job);
    // The libraries were there before.
    let libraries: u64 =
        estimate.held.iter().filter(|n| n.name == "libraries").map(|n| n.bytes).sum();
    println!("{:#?}\nlibraries {} MiB", estimate, before >> 20);
    println!("predicted {}\ntaken {}", (estimate.peak() - libraries) >> 20, taken >> 20);
}

/// A model of a few million numbers, images, and the settings.
fn prepare(dir: &Path, case: &Case) -> EngineSetup {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/demo/tiny-qwen2.5-vl");
    let (source, model) = (dir.join("source"), dir.join("model"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(&tiny).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, source.join(path.file_name().unwrap())).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    let text = [
        ("hidden_size", 256),
        ("intermediate_size", 1024),
        ("num_hidden_layers", 5),
        ("vocab_size", 4000),
    ];
    for (key, value) in text {
        config["text_config"][key] = json!(value);
    }
    config["text_config"]["rope_parameters"]["mrope_section"] = json!([8, 12, 12]);
    for (key, value) in
        [("depth", 5), ("hidden_size", 256), ("intermediate_size", 512), ("out_hidden_size", 256)]
    {
        config["vision_config"][key] = json!(value);
    }
    fs::write(source.join("config.json"), config.to_string()).unwrap();
    Qwen25Vl::random(ModelConfig::load(&source).unwrap(), 1, Device::Cpu).save(&model).unwrap();
    for number in 0..case.rows {
        write_bmp(
            &dir.join(format!("{number}.bmp")),
            case.edge.max(28),
            case.edge.max(28),
            number as u32,
        );
    }
    EngineSetup {
        model,
        dtype: case.dtype,
        seed: 3,
        threads: 1,
        max_prompt_tokens: 1000,
        tokens_per_batch: 4000,
        collective_timeout_ms: 30_000,
        freeze_vision: case.freeze_vision,
        train: TrainSettings::default(),
        lora: None,
    }
}

fn prompt(dir: &Path, case: &Case, number: usize) -> Prompt {
    let image = dir.join(format!("{number}.bmp"));
    Prompt {
        sample: SampleId(number.to_string()),
        images: if case.edge > 0 { vec![image] } else { Vec::new() },
        question: "where is the lesion ?".into(),
    }
}

/// A line of this process's status, bytes.
fn resident(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    kilobytes.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
