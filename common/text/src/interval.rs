//! How sure a mean over questions is: percentile bootstrap (Efron 1979).

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean of the values; 0 if there are none.
    pub mean: f64,
    /// 2.5th percentile of the resampled means.
    pub low: f64,
    /// 97.5th percentile of the resampled means.
    pub high: f64,
    /// How many values.
    pub n: usize,
}

/// On how many questions the adapted model does better, as well, or worse than the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinTieLoss {
    /// Better than the base.
    pub win: usize,
    /// As good as the base.
    pub tie: usize,
    /// Worse than the base.
    pub loss: usize,
}

/// Mean of `values` (one a question) with a 95 % percentile bootstrap interval over `resamples` resamples
/// of the questions. Same seed, same interval. Without values all is 0 with `n` = 0; without resamples the
/// interval is the mean alone.
#[must_use]
pub fn bootstrap(values: &[f64], resamples: usize, seed: u64) -> Interval {
    let n = values.len();
    if n == 0 {
        return Interval { mean: 0.0, low: 0.0, high: 0.0, n };
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| (0..n).map(|_| values[index(&mut rng, n)]).sum::<f64>() / n as f64)
        .collect();
    if means.is_empty() {
        means.push(mean);
    }
    means.sort_by(f64::total_cmp);
    Interval { mean, low: quantile(&means, 0.025), high: quantile(&means, 0.975), n }
}

/// Mean of `adapted - base` over the same questions in the same order, with its 95 % interval: questions
/// are resampled as pairs.
///
/// # Panics
/// If the two differ in length: they are then not the same questions.
#[must_use]
pub fn paired_bootstrap(base: &[f64], adapted: &[f64], resamples: usize, seed: u64) -> Interval {
    assert_eq!(base.len(), adapted.len(), "base and adapted are scores of the same questions");
    let gains: Vec<f64> = base.iter().zip(adapted).map(|(base, adapted)| adapted - base).collect();
    bootstrap(&gains, resamples, seed)
}

/// Counts wins, ties and losses of `adapted` against `base` over the same questions in the same order.
///
/// # Panics
/// If the two differ in length: they are then not the same questions.
#[must_use]
pub fn win_tie_loss(base: &[f64], adapted: &[f64]) -> WinTieLoss {
    assert_eq!(base.len(), adapted.len(), "base and adapted are scores of the same questions");
    let mut count = WinTieLoss::default();
    for (base, adapted) in base.iter().zip(adapted) {
        match adapted.total_cmp(base) {
            std::cmp::Ordering::Greater => count.win += 1,
            std::cmp::Ordering::Equal => count.tie += 1,
            std::cmp::Ordering::Less => count.loss += 1,
        }
    }
    count
}

/// Uniform index below `n` by multiply and shift; its bias, n / 2^64, is far below what 64 bits show.
fn index(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Linearly interpolated quantile of sorted, non-empty values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + (above - sorted[below]) * part
}
