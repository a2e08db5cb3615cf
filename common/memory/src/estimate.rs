//! What is held always, and what each phase adds.

use medevo_types::settings::Shard;
use serde::Serialize;

use crate::{
    activations,
    job::{Job, Place, Row},
    shape::Shape,
};

/// Logits that the engine makes at a time in training, numbers.
const LOGITS_PER_CHUNK: u64 = 1 << 24;
/// Vision features that the engine keeps for each set of weights, bytes.
const FEATURE_BYTES: u64 = 256 << 20;
/// Weights that each rank brings to one exchange, numbers.
const NUMBERS_PER_EXCHANGE: u64 = 1 << 24;

/// Something that takes memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// What it is.
    pub name: &'static str,
    /// How much, bytes.
    pub bytes: u64,
}

/// A part of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Which.
    pub name: &'static str,
    /// What it adds to what is held.
    pub needs: Vec<Need>,
}

impl Phase {
    /// What it adds in all, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        total(&self.needs)
    }
}

/// What one worker needs on its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// From the first step to the last.
    pub held: Vec<Need>,
    /// What comes and goes.
    pub phases: Vec<Phase>,
}

impl Estimate {
    /// Of a job on a model.
    #[must_use]
    pub fn new(shape: &Shape, job: &Job) -> Self {
        let trained = trained(shape, job);
        let mut phases = Vec::new();
        if let Some((row, together)) = &job.rollout {
            phases.push(rollout(shape, job, row, job.rows_per_batch(row, *together)));
        }
        if let Some((row, rows)) = &job.update {
            phases.push(update(shape, job, row, job.rows_per_update(shape, row, *rows), trained));
            phases.push(apply(shape, job, trained));
        }
        Self { held: held(shape, job, trained), phases }
    }

    /// The phase that adds most.
    #[must_use]
    pub fn widest(&self) -> Option<&Phase> {
        self.phases.iter().max_by_key(|phase| phase.bytes())
    }

    /// The most that is needed at a time, bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        total(&self.held) + self.widest().map_or(0, Phase::bytes)
    }

    /// What takes most at that time.
    #[must_use]
    pub fn largest(&self) -> Option<&Need> {
        let widest = self.widest().map(|phase| phase.needs.as_slice()).unwrap_or_default();
        self.held.iter().chain(widest).max_by_key(|need| need.bytes)
    }
}

fn total(needs: &[Need]) -> u64 {
    needs.iter().map(|need| need.bytes).sum()
}

/// Numbers that learn.
fn trained(shape: &Shape, job: &Job) -> u64 {
    match &job.lora {
        _ if job.update.is_none() => 0,
        Some(lora) => shape.adapter_parameters(lora.rank as u64, &lora.targets, job.freeze_vision),
        None if job.freeze_vision => shape.text_parameters(),
        None => shape.parameters(),
    }
}

/// What one rank keeps of what all of them step.
fn own_part(job: &Job, trained: u64) -> u64 {
    match job.train.shard {
        Shard::Optimizer => trained.div_ceil(job.workers.max(1)),
        Shard::None => trained,
    }
}

fn held(shape: &Shape, job: &Job, trained: u64) -> Vec<Need> {
    let (width, own) = (job.width(), own_part(job, trained));
    let adapters = if job.lora.is_some() { trained } else { 0 };
    let masters = if job.trained_width() < 4 { 4 * own } else { 0 };
    let reference = job.reference && job.lora.is_none();
    let features = (job.image_tokens * shape.hidden * width).min(FEATURE_BYTES);
    let libraries = match job.place {
        Place::Cpu => 150 << 20,
        Place::Gpu => 800 << 20,
    };
    let pixels = match job.place {
        Place::Cpu => {
            let merge = shape.vision.merge * shape.vision.merge;
            (job.image_tokens * merge * shape.vision.patch * 4).min(FEATURE_BYTES)
        }
        Place::Gpu => 0,
    };
    needs([
        ("weights", shape.parameters() * width + adapters * job.trained_width()),
        ("f32 masters", masters),
        ("moments", 8 * own),
        ("gradients on the weights", trained * job.trained_width()),
        ("reference weights", if reference { shape.parameters() * width } else { 0 }),
        ("vision features", if reference { 2 * features } else { features }),
        ("decoded images", pixels),
        ("libraries", libraries),
    ])
}

fn rollout(shape: &Shape, job: &Job, row: &Row, rows: u64) -> Phase {
    let width = job.width();
    let token = 2 * shape.layers * shape.keys * width;
    let slots = rows * row.answers;
    let prefix = rows * row.prompt;
    let scores = slots * shape.heads * (row.prompt + row.answer);
    let passing = activations::passing(shape, job, prefix)
        .max(activations::passing_vision(shape, job, row.patches))
        // Scores against the prompt and the own tokens, joined, and their softmax, f32.
        .max(4 * 4 * scores);
    phase(
        "rollout",
        [
            ("keys and values of prompts", prefix * token),
            ("keys and values of answers", slots * row.answer * token),
            ("activations", passing),
            // Logits, log-probabilities, and what nucleus sampling sorts.
            ("logits", slots * shape.vocabulary * (width + 3 * 4)),
        ],
    )
}

fn update(shape: &Shape, job: &Job, row: &Row, rows: u64, trained: u64) -> Phase {
    let tokens = rows * row.tokens();
    let frozen = !job.trains_vision();
    let patches = if frozen { 0 } else { rows * row.patches };
    let mut activations = activations::training(shape, job, tokens, patches);
    if frozen {
        activations = activations.max(activations::passing_vision(shape, job, row.patches));
    }
    let places = rows * row.answers * row.answer;
    let chunk = LOGITS_PER_CHUNK.min(places * shape.vocabulary);
    // The largest gradient stands beside the place that it is added to.
    let largest = if job.lora.is_some() { 0 } else { shape.embedding() };
    let part = if job.train.shard == Shard::Optimizer { 4 * own_part(job, trained) } else { 0 };
    phase(
        "update",
        [
            ("sum of gradients", 4 * trained),
            ("own part of the sum", part),
            ("activations", activations),
            // Logits, their log-softmax, its exponential for the entropy, and a gradient of each.
            ("logits", chunk * (2 * job.width() + 4 * 4)),
            ("largest gradient", 2 * largest * job.width()),
        ],
    )
}

fn apply(shape: &Shape, job: &Job, trained: u64) -> Phase {
    let own = own_part(job, trained);
    let largest = shape.embedding().min(own);
    let sharded = job.train.shard == Shard::Optimizer && job.workers > 1;
    let exchange = if sharded {
        NUMBERS_PER_EXCHANGE.min(own) * (job.workers + 1) * job.trained_width()
    } else {
        0
    };
    phase(
        "apply",
        [
            ("sum of gradients", 4 * own),
            // Twice in f32: the scaled gradient and the step of one parameter.
            ("largest parameter", 2 * 4 * largest),
            ("exchanged weights", exchange),
        ],
    )
}

fn phase<const N: usize>(name: &'static str, all: [(&'static str, u64); N]) -> Phase {
    Phase { name, needs: needs(all) }
}

fn needs<const N: usize>(all: [(&'static str, u64); N]) -> Vec<Need> {
    let some = all.into_iter().filter(|(_, bytes)| *bytes > 0);
    some.map(|(name, bytes)| Need { name, bytes }).collect()
}
