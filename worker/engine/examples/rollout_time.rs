//! Seconds of a rollout of one candidate group a question.
//!
//! `cargo run --release -p medevo-engine --example rollout_time -- MODEL_DIR N ANSWER_TOKENS QUESTIONS IMAGE...`
//! MODEL_DIR is a Hugging Face directory with weights. Question i is asked about image i, counted around;
//! without images the questions are text alone. THREADS, TOKENS (the budget of a batch)
//! and RUNS in the environment say how (1, 16384 and 3); one run more warms up and is not counted.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use medevo_collective::Solo;
use medevo_engine::Engine;
use medevo_types::{
    PolicyVersion, SampleId, Step, UnitId,
    messages::{EngineSetup, Prompt, Purpose, RestoreSource, RolloutUnit},
    settings::{Dtype, Sampling, TrainSettings},
};

const USAGE: &str = "usage: rollout_time MODEL_DIR N ANSWER_TOKENS QUESTIONS IMAGE...";
const QUESTION: &str = "what kind of lesion is present in the image ?";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(arguments.len() >= 4, USAGE);
    let number = |at: usize| arguments[at].parse::<usize>().context(USAGE);
    let (n, max_new_tokens, questions) = (number(1)?, number(2)?, number(3)?);
    let images: Vec<PathBuf> = arguments[4..].iter().map(PathBuf::from).collect();
    let from_environment = |name: &str, otherwise: usize| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    };
    let model = PathBuf::from(&arguments[0]);
    let setup = EngineSetup {
        model: model.clone(),
        dtype: Dtype::F32,
        seed: 0,
        threads: from_environment("THREADS", 1),
        max_prompt_tokens: 4096,
        tokens_per_batch: from_environment("TOKENS", 16384),
        collective_timeout_ms: 30_000,
        freeze_vision: false,
        train: TrainSettings::default(),
        lora: None,
    };
    let mut engine = Engine::new(&setup, tch::Device::Cpu)?;
    let source = RestoreSource::Model { dir: model };
    let prompts: Vec<Prompt> = (0..questions)
        .map(|sample| Prompt {
            sample: SampleId(sample.to_string()),
            images: images.get(sample % images.len().max(1)).cloned().into_iter().collect(),
            question: QUESTION.into(),
        })
        .collect();
    let mut times = Vec::new();
    for run in 0..=from_environment("RUNS", 3).max(1) {
        // A fresh version each time: its vision features are not known yet.
        let policy = PolicyVersion(run as u64);
        engine.restore(&source, policy, &mut Solo)?;
        let unit = RolloutUnit {
            unit: UnitId(1),
            policy,
            step: Step(1),
            purpose: Purpose::Train,
            sampling: Sampling { n, max_new_tokens, ..Sampling::default() },
            features: false,
            prompts: prompts.clone(),
        };
        let start = Instant::now();
        let groups = engine.rollout(&unit)?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize =
            groups.iter().flat_map(|group| &group.candidates).map(|c| c.ids.len()).sum();
        println!(
            "run {run}: {seconds:.3} s, {} prompt tokens, {tokens} answer tokens, {:.0} a second",
            groups.iter().map(|group| group.prompt_tokens).sum::<u32>(),
            tokens as f64 / seconds
        );
        if run > 0 {
            times.push(seconds);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("median {:.3} s", times[times.len() / 2]);
    Ok(())
}
