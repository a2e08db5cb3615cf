//! Seconds of a policy update and the process's peak memory, for groups of a given shape.
//!
//! `cargo run --release -p medevo-engine --example update_time -- MODEL_DIR QUESTIONS N ANSWER_TOKENS \
//!    THREADS TOKENS_PER_BATCH RECOMPUTE IMAGE...`
//! RECOMPUTE is 0 or 1. Question i shows image i, round and round; without images the questions are text only.
//! The N answers of a group differ.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use medevo_collective::Solo;
use medevo_engine::Engine;
use medevo_types::{
    Attempt, Generation, PolicyVersion, SampleId, Step,
    messages::{Batch, EngineSetup, Prompt, RestoreSource, TrainAnswer, TrainGroup, UpdateWork},
    settings::{Dtype, Objective, TrainSettings},
};

const UPDATES: usize = 3;

fn main() -> anyhow::Result<()> {
    let usage = "usage: update_time MODEL_DIR QUESTIONS N ANSWER_TOKENS THREADS \
                 TOKENS_PER_BATCH RECOMPUTE IMAGE...";
    let mut arguments = std::env::args().skip(1);
    let model = PathBuf::from(arguments.next().context(usage)?);
    let mut number = || -> anyhow::Result<usize> { Ok(arguments.next().context(usage)?.parse()?) };
    let (questions, n, tokens) = (number()?, number()?, number()?);
    let (threads, tokens_per_batch, recompute) = (number()?, number()?, number()? == 1);
    let images: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let setup = EngineSetup {
        model: model.clone(),
        dtype: Dtype::F32,
        seed: 0,
        threads,
        max_prompt_tokens: 4096,
        tokens_per_batch,
        collective_timeout_ms: 30_000,
        freeze_vision: false,
        train: TrainSettings { recompute, ..TrainSettings::default() },
        lora: None,
    };
    let mut engine = Engine::new(&setup, tch::Device::Cpu)?;
    engine.restore(&RestoreSource::Model { dir: model }, PolicyVersion(0), &mut Solo)?;
    let group = |question: usize| TrainGroup {
        prompt: Prompt {
            sample: SampleId(question.to_string()),
            images: images.iter().cycle().skip(question).take(1).cloned().collect(),
            question: "where is the lesion ?".to_owned(),
        },
        answers: (0..n)
            .map(|answer| TrainAnswer {
                ids: (0..tokens).map(|at| 100 + ((answer * 31 + at * 7) % 300) as u32).collect(),
                count: 1,
                advantage: answer as f64 - n as f64 / 2.0,
                logprobs: vec![-1.0; tokens],
            })
            .collect(),
    };
    let work = UpdateWork {
        generation: Generation(1),
        step: Step(1),
        attempt: Attempt(1),
        policy: PolicyVersion(0),
        batch: Batch::Grpo {
            objective: Objective { beta: 0.0, ..Objective::default() },
            temperature: 1.0,
            max_new_tokens: tokens,
            reference: None,
            groups: (0..questions).map(group).collect(),
        },
    };
    let mut best = f64::INFINITY;
    for _ in 0..UPDATES {
        let start = Instant::now();
        let ballot = engine.update(&work, &mut Solo)?;
        ensure!(ballot.finite, "the gradient is not finite");
        best = best.min(start.elapsed().as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM line")?;
    println!("update {best:.3} s (best of {UPDATES}), {}", peak.replace('\t', " "));
    Ok(())
}
