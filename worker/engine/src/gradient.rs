//! A step's gradient: summed over this rank's micro-batches, reduced over ranks with the counts that
//! normalise it, and kept until a commit or a discard.

use std::time::Instant;

use medevo_collective::Collective;
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step,
    messages::{ApplyWork, UpdateWork},
};
use tch::{Device, Kind, Tensor};

use crate::{
    digest,
    error::EngineError,
    exchange::exchange,
    fingerprint::{self, Fingerprint},
    shard::Shard,
};

/// Sums that travel behind the gradient, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Loss,
    Kl,
    Entropy,
    ClippedLow,
    ClippedHigh,
    Ratio,
    Tokens,
    Answers,
}

const FIGURES: i64 = 8;

/// Sums over all micro-batches of a rank, then of all ranks: one buffer `[gradient | zeros | figures]`, f32, so
/// that one all-reduce carries both. The zeros make the gradient fall into equal parts.
#[derive(Debug)]
pub(crate) struct Sums {
    buffer: Tensor,
    shard: Shard,
    /// Where the figures begin.
    figures: i64,
}

impl Sums {
    /// For a rank that steps `shard` of the trained numbers.
    pub fn zeros(shard: Shard, device: Device) -> Self {
        let figures = shard.padded() * shard.count as i64;
        let buffer = Tensor::zeros([figures + FIGURES], (Kind::Float, device));
        Self { buffer, shard, figures }
    }

    /// The whole gradient, `[trained numbers]`.
    pub fn gradient(&self) -> Tensor {
        self.buffer.narrow(0, 0, self.shard.total)
    }

    /// Adds a scalar on the device to a figure.
    pub fn add(&self, figure: Figure, value: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let mut place = self.buffer.narrow(0, self.figures + figure as i64, 1);
        let _ = place.g_add_(&value.detach().to_kind(Kind::Float));
    }

    /// Adds a number to a figure.
    pub fn add_number(&self, figure: Figure, value: f64) {
        let mut place = self.buffer.narrow(0, self.figures + figure as i64, 1);
        let _ = place.g_add_scalar_(value);
    }

    /// Makes this rank's part void. It still takes part in the reduction, so that its peers hear at once of
    /// a failure here instead of waiting for their deadline.
    pub fn poison(&mut self) {
        let _ = self.buffer.fill_(f64::NAN);
    }

    /// Sums over all ranks: this rank's part of the gradient, `[shard's numbers]`, and the figures' sums, indexed by
    /// [`Figure`].
    pub fn reduce(
        mut self,
        collective: &mut dyn Collective,
    ) -> Result<(Tensor, Vec<f64>), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let (shard, device) = (self.shard, self.buffer.device());
        let gradient = if shard.is_whole() {
            collective.all_reduce_sum(&mut self.buffer)?;
            self.gradient()
        } else {
            let mut part = Tensor::zeros([shard.padded()], (Kind::Float, device));
            let whole = self.buffer.narrow(0, 0, self.figures);
            collective.reduce_scatter_sum(&mut part, &whole)?;
            collective.all_reduce_sum(&mut self.buffer.narrow(0, self.figures, FIGURES))?;
            part.narrow(0, 0, shard.length())
        };
        let figures = self.buffer.narrow(0, self.figures, FIGURES);
        let figures = Vec::<f32>::try_from(figures).map_err(anyhow::Error::from)?;
        Ok((gradient, figures.into_iter().map(f64::from).collect()))
    }
}

/// A reduced, normalised gradient that waits for the coordinator's word.
#[derive(Debug)]
pub(crate) struct Kept {
    generation: Generation,
    step: Step,
    attempt: Attempt,
    policy: PolicyVersion,
    /// This rank's part, `[shard's numbers]` f32.
    pub gradient: Tensor,
    /// Norm of the whole gradient.
    pub norm: f64,
    /// Of the whole gradient.
    pub digest: Digest,
    pub finite: bool,
}

impl Kept {
    /// Divides the reduced gradient by `normaliser` and looks at it. Ranks that have only a part exchange what
    /// they see of it, so that each votes about the whole.
    pub fn new(
        work: &UpdateWork,
        shard: Shard,
        mut gradient: Tensor,
        normaliser: f64,
        collective: &mut dyn Collective,
    ) -> Result<Self, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let _ = gradient.g_mul_scalar_(1.0 / normaliser);
        let mut squares = squares(&gradient);
        let start = Instant::now();
        let mut print = fingerprint::of(&gradient, shard.range().start);
        tracing::debug!(us = start.elapsed().as_micros(), "digest of the gradient");
        if !shard.is_whole() {
            let seen = [squares.to_bits() as i64, print.0[0] as i64, print.0[1] as i64];
            (squares, print) = (0.0, Fingerprint::default());
            for row in exchange(&seen, gradient.device(), collective)? {
                squares += f64::from_bits(row[0] as u64);
                print += Fingerprint([row[1] as u64, row[2] as u64]);
            }
        }
        let norm = squares.sqrt();
        Ok(Self {
            generation: work.generation,
            step: work.step,
            attempt: work.attempt,
            policy: work.policy,
            digest: digest::of_fingerprint(print),
            // An f64 sum of squared f32 numbers cannot overflow, so it is finite just when each of them is.
            finite: norm.is_finite(),
            gradient,
            norm,
        })
    }

    /// Whether `work` is about this gradient (INV-2).
    ///
    /// # Errors
    /// Says how they differ.
    pub fn check(&self, work: &ApplyWork) -> Result<(), EngineError> {
        let kept = (self.generation, self.step, self.attempt, self.policy.next());
        let asked = (work.generation, work.step, work.attempt, work.policy);
        if kept == asked {
            return Ok(());
        }
        let say = |(generation, step, attempt, policy)| {
            format!("generation {generation}, step {step}, attempt {attempt}, to version {policy}")
        };
        let (kept, asked) = (say(kept), say(asked));
        Err(EngineError::stale(
            format!("applying the gradient of {asked}"),
            format!("the gradient kept is that of {kept}; compute this one first"),
        ))
    }
}

/// Sum of squares in f64, chunk by chunk so that no f64 copy of the whole exists.
fn squares(flat: &Tensor) -> f64 {
    const CHUNK: i64 = 1 << 22;
    let length = flat.size()[0];
    let mut sum = 0.0;
    let mut from = 0;
    while from < length {
        let part = flat.narrow(0, from, CHUNK.min(length - from)).to_kind(Kind::Double);
        sum += part.dot(&part).double_value(&[]);
        from += CHUNK;
    }
    sum
}
