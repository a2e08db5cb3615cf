//! A tiny model directory with random weights, a few images, and the same numbers computed the plain way.

#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};

use medevo_engine::Engine;
use medevo_model::{Causal, Encoder, ImageProcessor, ModelConfig, Qwen25Vl};
use medevo_types::{
    Attempt, Generation, PolicyVersion, SampleId, Step, UnitId,
    messages::{
        ApplyWork, Batch, EngineSetup, Group, Prompt, Purpose, RestoreSource, RolloutUnit,
        TrainAnswer, TrainGroup, UpdateWork,
    },
    settings::{Dtype, Objective, OptimizerSettings, Sampling, TrainSettings},
};
use tch::{Device, Kind, Tensor};

pub struct Fixture {
    pub dir: tempfile::TempDir,
}

impl Fixture {
    /// `model` and `reference` with different weights, and three images of two sizes.
    pub fn new() -> Self {
        Self::from(&demo_shape())
    }

    /// Like [`Self::new`], with other numbers of decoder layers and of tokens in the vocabulary.
    pub fn of_shape(layers: usize, vocabulary: usize) -> Self {
        let shape = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(demo_shape()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), shape.path().join(file.file_name())).unwrap();
        }
        let path = shape.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["text_config"]["num_hidden_layers"] = layers.into();
        config["text_config"]["vocab_size"] = vocabulary.into();
        std::fs::write(&path, config.to_string()).unwrap();
        Self::from(shape.path())
    }

    fn from(source: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, seed) in [("model", 1), ("reference", 2)] {
            let to = dir.path().join(name);
            std::fs::create_dir(&to).unwrap();
            let config = ModelConfig::load(source).unwrap();
            let model = Qwen25Vl::random(config, seed, Device::Cpu);
            // Weights of the usual small scale say nearly the same everywhere; these have opinions.
            tch::no_grad(|| {
                for (_, tensor) in model.parameters() {
                    if tensor.dim() == 2 {
                        let mut tensor = tensor.shallow_clone();
                        let _ = tensor.g_mul_scalar_(4.0);
                    }
                }
            });
            model.save(&to).unwrap();
        }
        for (number, (width, height)) in [(84, 84), (112, 56), (84, 84)].into_iter().enumerate() {
            write_bmp(&dir.path().join(format!("{number}.bmp")), width, height, number as u32);
        }
        Self { dir }
    }

    pub fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    pub fn setup(&self) -> EngineSetup {
        EngineSetup {
            model: self.model(),
            dtype: Dtype::F32,
            seed: 3,
            threads: 1,
            max_prompt_tokens: 200,
            tokens_per_batch: 1000,
            collective_timeout_ms: 30_000,
            freeze_vision: false,
            train: TrainSettings::default(),
            lora: None,
        }
    }

    pub fn engine(&self) -> Engine {
        self.engine_with(&self.setup())
    }

    pub fn engine_with(&self, setup: &EngineSetup) -> Engine {
        let mut engine = Engine::new(setup, Device::Cpu).unwrap();
        let source = RestoreSource::Model { dir: self.model() };
        engine.restore(&source, PolicyVersion(0), &mut medevo_collective::Solo).unwrap();
        engine
    }

    pub fn prompt(&self, sample: &str, images: &[usize], question: &str) -> Prompt {
        let path = |number: &usize| self.dir.path().join(format!("{number}.bmp"));
        Prompt {
            sample: SampleId(sample.into()),
            images: images.iter().map(path).collect(),
            question: question.into(),
        }
    }

    /// Questions with one image, none, another size, two, and the first image again.
    pub fn prompts(&self) -> Vec<Prompt> {
        vec![
            self.prompt("a", &[0], "where is the lesion ?"),
            self.prompt("b", &[], "is this a ct image ?"),
            self.prompt("c", &[1], "what modality is this image ?"),
            self.prompt("d", &[2, 1], "which organ is abnormal ?"),
            self.prompt("e", &[0], "what kind of lesion is present in the image ?"),
        ]
    }
}

fn demo_shape() -> PathBuf {
    // For tests that run elsewhere than they were built (tests/gpu).
    let root = std::env::var_os("MEDEVO_ROOT").map(PathBuf::from);
    root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .join("ops/demo/tiny-qwen2.5-vl")
}

pub fn write_bmp(path: &Path, width: u32, height: u32, seed: u32) {
    let row = (width * 3).div_ceil(4) * 4;
    let size = 54 + row * height;
    let mut bytes = b"BM".to_vec();
    for word in [size, 0, 54, 40, width, height, 1 | (24 << 16), 0, row * height, 0, 0, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for y in 0..height {
        for x in 0..row {
            bytes.push(((x * (7 + seed) + y * y * 3 + seed * 91) % 251) as u8);
        }
    }
    std::fs::write(path, bytes).unwrap();
}

pub fn unit(prompts: Vec<Prompt>, sampling: Sampling) -> RolloutUnit {
    RolloutUnit {
        unit: UnitId(1),
        policy: PolicyVersion(0),
        step: Step(1),
        purpose: Purpose::Train,
        sampling,
        features: true,
        prompts,
    }
}

/// Answers of many shapes: one token, shared beginnings, identical ones with a count.
pub fn groups(prompts: Vec<Prompt>) -> Vec<TrainGroup> {
    let answers: [&[(&[u32], u32, f64)]; 3] = [
        &[(&[40, 41, 42, 2], 3, 0.8), (&[40, 41, 2], 1, -1.2), (&[50, 2], 2, -0.3)],
        &[(&[2], 1, 0.4), (&[60, 61, 62, 63, 64], 5, -0.2)],
        &[(&[70, 71], 4, 1.0)],
    ];
    let group = |(number, prompt): (usize, Prompt)| TrainGroup {
        prompt,
        answers: answers[number % answers.len()]
            .iter()
            .map(|(ids, count, advantage)| TrainAnswer {
                ids: ids.to_vec(),
                count: *count,
                advantage: *advantage,
                logprobs: vec![-1.0; ids.len()],
            })
            .collect(),
    };
    prompts.into_iter().enumerate().map(group).collect()
}

pub fn grpo(groups: Vec<TrainGroup>, objective: Objective, reference: PathBuf) -> Batch {
    Batch::Grpo {
        rollout_policy: PolicyVersion(0),
        objective,
        temperature: 0.7,
        max_new_tokens: 6,
        reference: Some(reference),
        groups,
    }
}

/// A later update of the rollout that these answers are from: another version drew them than is trained.
pub fn drawn_before(batch: Batch) -> Batch {
    let mut batch = batch;
    if let Batch::Grpo { rollout_policy, .. } = &mut batch {
        *rollout_policy = PolicyVersion(u64::MAX);
    }
    batch
}

pub fn update_work(policy: u64, batch: Batch) -> UpdateWork {
    UpdateWork {
        generation: Generation(1),
        step: Step(policy + 1),
        attempt: Attempt(1),
        policy: PolicyVersion(policy),
        batch,
    }
}

pub fn apply_work(policy: u64) -> ApplyWork {
    ApplyWork {
        generation: Generation(1),
        step: Step(policy + 1),
        attempt: Attempt(1),
        policy: PolicyVersion(policy + 1),
        optimizer: OptimizerSettings::default(),
        lr: 1e-3,
        reset_moments: policy == 0,
    }
}

pub fn figure(ballot: &medevo_types::messages::Ballot, name: &str) -> f64 {
    ballot.figures.iter().find(|(other, _)| other == name).unwrap().1
}

pub fn all_ids(groups: &[Group]) -> Vec<Vec<Vec<u32>>> {
    let ids = |group: &Group| group.candidates.iter().map(|c| c.ids.clone()).collect();
    groups.iter().map(ids).collect()
}

/// The model without any of the engine's savings: one row an answer, causal attention, whole logits.
pub struct Plain {
    pub model: Qwen25Vl,
    pub encoder: Encoder,
    processor: ImageProcessor,
}

impl Plain {
    pub fn new(dir: &Path) -> Self {
        Self {
            model: Qwen25Vl::load(dir, Kind::Float, Device::Cpu).unwrap(),
            encoder: Encoder::load(dir).unwrap(),
            processor: ImageProcessor::load(dir).unwrap(),
        }
    }

    /// Hidden states that predict each of `answer`'s tokens, and the one after it: `[answer + 1, hidden]`.
    pub fn hidden(&self, prompt: &Prompt, answer: &[u32]) -> Tensor {
        let images: Vec<_> =
            prompt.images.iter().map(|path| self.processor.open(path).unwrap()).collect();
        let grids: Vec<_> = images.iter().map(|image| image.grid).collect();
        let tokens = self.encoder.prompt(&prompt.question, &grids).unwrap();
        let ids: Vec<i64> = tokens.ids.iter().chain(answer).map(|id| i64::from(*id)).collect();
        let length = ids.len() as i64;
        let axes: Vec<Tensor> = (0..3)
            .map(|axis| {
                let mut all = tokens.positions[axis].clone();
                all.extend((0..answer.len() as i64).map(|place| tokens.next_position + place));
                Tensor::from_slice(&all).view([1, length])
            })
            .collect();
        let ids = Tensor::from_slice(&ids).view([1, length]);
        let mut embeds = self.model.embed(&ids);
        if !images.is_empty() {
            let features = self.model.vision(&images.iter().collect::<Vec<_>>());
            embeds = self.model.place_images(&embeds, &ids, &features).unwrap();
        }
        let hidden = self.model.text(&embeds, &Tensor::stack(&axes, 0), &mut Causal);
        let from = tokens.ids.len() as i64 - 1;
        hidden.squeeze_dim(0).narrow(0, from, answer.len() as i64 + 1)
    }

    /// Log-probabilities over the unbanned vocabulary: `[answer, vocabulary]`.
    pub fn distributions(&self, prompt: &Prompt, answer: &[u32], temperature: f64) -> Tensor {
        let hidden = self.hidden(prompt, answer).narrow(0, 0, answer.len() as i64);
        let logits = self.model.logits(&hidden) / temperature;
        let mut ban = vec![0f32; self.model.config.text.vocab_size as usize];
        for id in self.encoder.banned_ids() {
            ban[*id as usize] = f32::NEG_INFINITY;
        }
        (logits + Tensor::from_slice(&ban)).log_softmax(-1, Kind::Float)
    }

    /// `[answer]`.
    pub fn logp(&self, prompt: &Prompt, answer: &[u32], temperature: f64) -> Tensor {
        let ids: Vec<i64> = answer.iter().map(|id| i64::from(*id)).collect();
        let index = Tensor::from_slice(&ids).unsqueeze(1);
        self.distributions(prompt, answer, temperature).gather(1, &index, false).squeeze_dim(1)
    }

    /// The gradient that lies on the parameters, flat, in their order.
    pub fn gradient(&self) -> Tensor {
        let flat = |tensor: &Tensor| match tensor.grad() {
            grad if grad.defined() => grad.reshape([-1]),
            _ => tensor.zeros_like().reshape([-1]),
        };
        let parts: Vec<_> =
            self.model.parameters().iter().map(|(_, tensor)| flat(tensor)).collect();
        Tensor::cat(&parts, 0)
    }
}

/// Largest difference, relative to the largest entry of `b`.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / b.abs().max()).double_value(&[])
}
