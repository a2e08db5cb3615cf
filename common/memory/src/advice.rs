//! What to change when a job does not fit, and how much that saves.

use medevo_types::settings::{Dtype, LoraSettings, Shard};
use serde::Serialize;

use crate::{estimate::Estimate, job::Job, shape::Shape};

/// Fewest workers that sharding is proposed with.
const SHARDS: u64 = 8;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What to set, as it stands in the run file.
    pub change: String,
    /// What that alone saves at the peak, bytes.
    pub saves: u64,
    /// Whether that alone is enough.
    pub enough: bool,
}

/// Changes that each save something, and as few of them as make the job fit into `memory` bytes together; none where
/// all together do not.
#[must_use]
pub fn advice(shape: &Shape, job: &Job, memory: u64) -> (Vec<Advice>, Option<Vec<String>>) {
    let peak = Estimate::new(shape, job).peak();
    let mut all = Vec::new();
    for change in CHANGES {
        let (needs, sentences) = with(shape, job, memory, &[change]);
        for change in sentences.into_iter().filter(|_| needs < peak) {
            all.push(Advice { change, saves: peak - needs, enough: needs <= memory });
        }
    }
    (all, enough(shape, job, memory))
}

/// What costs least first, until it is enough; then what has become needless goes, what costs most first.
fn enough(shape: &Shape, job: &Job, memory: u64) -> Option<Vec<String>> {
    let fits = |changes: &[Change]| with(shape, job, memory, changes).0 <= memory;
    let count = (0..=CHANGES.len()).find(|count| fits(&CHANGES[..*count]))?;
    let mut changes = CHANGES[..count].to_vec();
    for at in (0..count).rev() {
        let mut fewer = changes.clone();
        fewer.remove(at);
        if fits(&fewer) {
            changes = fewer;
        }
    }
    Some(with(shape, job, memory, &changes).1)
}

/// The peak after some changes, and what they are.
fn with(shape: &Shape, job: &Job, memory: u64, changes: &[Change]) -> (u64, Vec<String>) {
    let mut job = job.clone();
    let sentences = changes.iter().filter_map(|change| change(shape, &mut job, memory)).collect();
    (Estimate::new(shape, &job).peak(), sentences)
}

/// Makes a change to a job and says it; None where there is nothing to change.
type Change = fn(&Shape, &mut Job, u64) -> Option<String>;

/// From what costs least to what changes most.
const CHANGES: [Change; 6] = [recompute, half, smaller_batches, shard, freeze_vision, lora];

fn recompute(_: &Shape, job: &mut Job, _: u64) -> Option<String> {
    let changes = job.update.is_some() && !job.train.recompute;
    job.train.recompute = true;
    changes.then(|| "train.recompute = true".to_owned())
}

fn half(_: &Shape, job: &mut Job, _: u64) -> Option<String> {
    let changes = job.dtype == Dtype::F32;
    job.dtype = Dtype::Bf16;
    changes.then(|| "model.dtype = \"bf16\"".to_owned())
}

/// Half as many tokens, and again, until it fits or a batch is one row.
fn smaller_batches(shape: &Shape, job: &mut Job, memory: u64) -> Option<String> {
    let rows = [job.update, job.rollout].into_iter().flatten();
    let row = rows.map(|(row, _)| row.tokens()).max()?;
    let before = job.tokens_per_batch;
    while job.tokens_per_batch / 2 >= row && Estimate::new(shape, job).peak() > memory {
        job.tokens_per_batch /= 2;
    }
    let tokens = job.tokens_per_batch;
    (tokens < before).then(|| format!("engine.tokens_per_batch = {tokens}"))
}

fn shard(_: &Shape, job: &mut Job, _: u64) -> Option<String> {
    let changes = job.update.is_some() && job.train.shard == Shard::None;
    job.train.shard = Shard::Optimizer;
    job.workers = job.workers.max(SHARDS);
    let workers = job.workers;
    changes.then(|| format!("train.shard = \"optimizer\" with {workers} workers"))
}

fn freeze_vision(_: &Shape, job: &mut Job, _: u64) -> Option<String> {
    let changes = job.update.is_some() && !job.freeze_vision && job.lora.is_none();
    job.freeze_vision = true;
    changes.then(|| "model.freeze_vision = true".to_owned())
}

fn lora(_: &Shape, job: &mut Job, _: u64) -> Option<String> {
    let changes = job.update.is_some() && job.lora.is_none();
    job.lora.get_or_insert_with(LoraSettings::default);
    changes.then(|| "[lora]".to_owned())
}
