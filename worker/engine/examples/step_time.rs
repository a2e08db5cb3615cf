//! Milliseconds of a supervised step, a rollout and a policy update, on one thread.
//!
//! `cargo run --release -p medevo-engine --example step_time -- MODEL_DIR IMAGE...`
//! MODEL_DIR is a Hugging Face directory with weights; each image stands for four questions.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use medevo_collective::Solo;
use medevo_engine::Engine;
use medevo_types::{
    Attempt, Generation, PolicyVersion, SampleId, Step, UnitId,
    messages::{
        ApplyWork, Batch, EngineSetup, Prompt, Purpose, RestoreSource, RolloutUnit, SftExample,
        TrainAnswer, TrainGroup, UpdateWork,
    },
    settings::{Dtype, Objective, OptimizerSettings, Sampling, TrainSettings},
};

const STEPS: u64 = 10;
const QUESTIONS: [(&str, &str); 4] = [
    ("where is the lesion ?", "it is the liver"),
    ("what modality is this image ?", "ct"),
    ("what kind of lesion is present ?", "there is a nodule"),
    ("is this a ct image ?", "yes"),
];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let model = arguments.next().context("usage: step_time MODEL_DIR IMAGE...")?;
    let images: Vec<PathBuf> = arguments.collect();
    ensure!(!images.is_empty(), "usage: step_time MODEL_DIR IMAGE...");
    let setup = EngineSetup {
        model: model.clone(),
        dtype: Dtype::F32,
        seed: 0,
        threads: 1,
        max_prompt_tokens: 4096,
        tokens_per_batch: 16384,
        collective_timeout_ms: 30_000,
        freeze_vision: false,
        train: TrainSettings::default(),
        lora: None,
    };
    let mut engine = Engine::new(&setup, tch::Device::Cpu)?;
    let source = RestoreSource::Model { dir: model.clone() };
    engine.restore(&source, PolicyVersion(0), &mut Solo)?;
    let examples: Vec<SftExample> = images
        .iter()
        .enumerate()
        .flat_map(|(number, image)| {
            QUESTIONS.iter().enumerate().map(move |(which, (question, answer))| SftExample {
                prompt: Prompt {
                    sample: SampleId(format!("{number}-{which}")),
                    images: vec![image.clone()],
                    question: (*question).to_owned(),
                },
                answer: (*answer).to_owned(),
            })
        })
        .collect();
    println!("{} images, {} questions, mean of {STEPS} steps", images.len(), examples.len());

    let mut version = 0;
    let (mut update, mut apply) = (0.0, 0.0);
    for number in 0..=STEPS {
        let times = step(&mut engine, &mut version, Batch::Sft { examples: examples.clone() })?;
        if number > 0 {
            update += times.0;
            apply += times.1;
        }
    }
    let mean = |total: f64| total / STEPS as f64;
    println!("supervised  update {:7.1} ms   apply {:6.1} ms", mean(update), mean(apply));

    let prompts: Vec<Prompt> = examples.into_iter().map(|example| example.prompt).collect();
    let (mut rollout, mut update, mut apply) = (0.0, 0.0, 0.0);
    for number in 0..=STEPS {
        let start = Instant::now();
        let groups = draw(&mut engine, version, &prompts)?;
        let drawn = milliseconds(start);
        let batch = Batch::Grpo {
            rollout_policy: PolicyVersion(version),
            objective: Objective::default(),
            temperature: 1.0,
            max_new_tokens: 8,
            reference: Some(model.clone()),
            groups,
        };
        let times = step(&mut engine, &mut version, batch)?;
        if number > 0 {
            rollout += drawn;
            update += times.0;
            apply += times.1;
        }
    }
    println!(
        "policy      rollout {:6.1} ms   update {:6.1} ms   apply {:6.1} ms",
        mean(rollout),
        mean(update),
        mean(apply)
    );
    Ok(())
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn step(engine: &mut Engine, version: &mut u64, batch: Batch) -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    let work = UpdateWork {
        generation: Generation(1),
        step: Step(*version + 1),
        attempt: Attempt(1),
        policy: PolicyVersion(*version),
        batch,
    };
    let ballot = engine.update(&work, &mut Solo)?;
    ensure!(ballot.finite, "the gradient is not finite");
    let update = milliseconds(start);
    let start = Instant::now();
    let work = ApplyWork {
        generation: work.generation,
        step: work.step,
        attempt: work.attempt,
        policy: PolicyVersion(*version + 1),
        optimizer: OptimizerSettings::default(),
        lr: 1e-4,
        reset_moments: *version == 0,
    };
    engine.apply(&work, &mut Solo)?;
    *version += 1;
    Ok((update, milliseconds(start)))
}

/// Sixteen candidates a prompt, identical ones joined, the first distinct answer preferred.
fn draw(engine: &mut Engine, version: u64, prompts: &[Prompt]) -> anyhow::Result<Vec<TrainGroup>> {
    let unit = RolloutUnit {
        unit: UnitId(version),
        policy: PolicyVersion(version),
        step: Step(version),
        purpose: Purpose::Train,
        sampling: Sampling { n: 16, max_new_tokens: 8, ..Sampling::default() },
        features: false,
        prompts: prompts.to_vec(),
    };
    let mut groups = Vec::new();
    for (prompt, group) in prompts.iter().zip(engine.rollout(&unit)?) {
        let mut answers: Vec<TrainAnswer> = Vec::new();
        for candidate in group.candidates {
            match answers.iter_mut().find(|answer| answer.ids == candidate.ids) {
                Some(answer) => answer.count += 1,
                None => answers.push(TrainAnswer {
                    ids: candidate.ids,
                    count: 1,
                    advantage: if answers.is_empty() { 1.0 } else { -0.5 },
                    logprobs: candidate.logprobs,
                }),
            }
        }
        groups.push(TrainGroup { prompt: prompt.clone(), answers });
    }
    Ok(groups)
}
