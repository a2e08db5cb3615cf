//! Which samples a step works on: a pure function of seed, stage and place in the order, so that a resumed run
//! draws what an uninterrupted one draws (INV-7).

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::SampleIndex;

/// The samples of a stage's `step` (from 1), `per_step` of them out of `samples`.
///
/// The stage walks through its data in epochs. Each epoch is a permutation of all samples, drawn from
/// ChaCha8 keyed by (seed, stage, epoch); `together` consecutive samples stay neighbours in it, so that
/// the questions about one image meet in one step and the image is encoded once. A step may straddle
/// two epochs, so with small data one sample may occur twice in it. Empty data gives no samples.
#[must_use]
pub fn step_samples(
    seed: u64,
    stage: usize,
    step: u64,
    per_step: usize,
    samples: usize,
    together: usize,
) -> Vec<SampleIndex> {
    let first = step.saturating_sub(1).saturating_mul(per_step as u64);
    samples_from(seed, stage, first, per_step, samples, together)
}

/// `count` samples of a stage's order from place `first` (from 0) on; the other arguments are those of
/// [`step_samples`].
#[must_use]
pub fn samples_from(
    seed: u64,
    stage: usize,
    first: u64,
    count: usize,
    samples: usize,
    together: usize,
) -> Vec<SampleIndex> {
    if samples == 0 || count == 0 {
        return Vec::new();
    }
    let size = samples as u64;
    let mut chosen = Vec::with_capacity(count);
    let mut epoch = first / size;
    let mut at = (first % size) as usize;
    while chosen.len() < count {
        let order = permutation(seed, stage as u64, epoch, samples, together.max(1));
        let take = (samples - at).min(count - chosen.len());
        chosen.extend_from_slice(&order[at..at + take]);
        epoch += 1;
        at = 0;
    }
    chosen
}

/// Fisher–Yates over the blocks of `together` consecutive samples in `0..samples`.
fn permutation(
    seed: u64,
    stage: u64,
    epoch: u64,
    samples: usize,
    together: usize,
) -> Vec<SampleIndex> {
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&stage.to_le_bytes());
    key[16..24].copy_from_slice(&epoch.to_le_bytes());
    key[24..].copy_from_slice(b"samples.");
    let mut random = ChaCha8Rng::from_seed(key);
    let mut blocks: Vec<usize> = (0..samples.div_ceil(together)).collect();
    for last in (1..blocks.len()).rev() {
        blocks.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    blocks
        .into_iter()
        .flat_map(|block| block * together..samples.min((block + 1) * together))
        .collect()
}

/// A uniform number in `0..bound`, without the bias of a plain remainder.
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = random.next_u64();
        if drawn < limit {
            return drawn % bound;
        }
    }
}
