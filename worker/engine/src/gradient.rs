//! A step's gradient: summed over this rank's micro-batches, reduced over ranks with the counts that
//! normalise it, and kept until a commit or a discard.

use medevo_collective::Collective;
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step,
    messages::{ApplyWork, UpdateWork},
};
use tch::{Device, Kind, Tensor};

use crate::{digest, error::EngineError};

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

/// Sums over all micro-batches of a rank, then of all ranks: one buffer `[gradient | figures]`, f32, so that
/// one all-reduce carries both.
#[derive(Debug)]
pub(crate) struct Sums {
    buffer: Tensor,
    length: i64,
}

impl Sums {
    pub fn zeros(length: i64, device: Device) -> Self {
        Self { buffer: Tensor::zeros([length + FIGURES], (Kind::Float, device)), length }
    }

    /// The gradient's part, `[length]`.
    pub fn gradient(&self) -> Tensor {
        self.buffer.narrow(0, 0, self.length)
    }

    /// Adds a scalar on the device to a figure.
    pub fn add(&self, figure: Figure, value: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let mut place = self.buffer.narrow(0, self.length + figure as i64, 1);
        let _ = place.g_add_(&value.detach().to_kind(Kind::Float));
    }

    /// Adds a number to a figure.
    pub fn add_number(&self, figure: Figure, value: f64) {
        let mut place = self.buffer.narrow(0, self.length + figure as i64, 1);
        let _ = place.g_add_scalar_(value);
    }

    /// Makes this rank's part void. It still takes part in the reduction, so that its peers hear at once of
    /// a failure here instead of waiting for their deadline.
    pub fn poison(&mut self) {
        let _ = self.buffer.fill_(f64::NAN);
    }

    /// Sums over all ranks.
    pub fn reduce(&mut self, collective: &mut dyn Collective) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        Ok(collective.all_reduce_sum(&mut self.buffer)?)
    }

    /// The figures' sums, indexed by [`Figure`].
    pub fn figures(&self) -> Result<Vec<f64>, EngineError> {
        let figures = self.buffer.narrow(0, self.length, FIGURES);
        let figures = Vec::<f32>::try_from(figures).map_err(anyhow::Error::from)?;
        Ok(figures.into_iter().map(f64::from).collect())
    }
}

/// A reduced, normalised gradient that waits for the coordinator's word.
#[derive(Debug)]
pub(crate) struct Kept {
    generation: Generation,
    step: Step,
    attempt: Attempt,
    policy: PolicyVersion,
    /// `[length]` f32.
    pub gradient: Tensor,
    /// Global norm.
    pub norm: f64,
    pub digest: Digest,
    pub finite: bool,
}

impl Kept {
    /// Divides the reduced gradient by `normaliser` and looks at it.
    pub fn new(work: &UpdateWork, sums: &Sums, normaliser: f64) -> Self {
        let _no_grad = tch::no_grad_guard();
        let mut gradient = sums.gradient();
        let _ = gradient.g_mul_scalar_(1.0 / normaliser);
        let norm = norm(&gradient);
        Self {
            generation: work.generation,
            step: work.step,
            attempt: work.attempt,
            policy: work.policy,
            digest: digest::of_tensor(&gradient),
            // An f64 sum of squared f32 numbers cannot overflow, so it is finite just when each of them is.
            finite: norm.is_finite(),
            gradient,
            norm,
        }
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

/// Euclidean norm in f64, chunk by chunk so that no f64 copy of the whole exists.
fn norm(flat: &Tensor) -> f64 {
    const CHUNK: i64 = 1 << 22;
    let length = flat.size()[0];
    let mut sum = 0.0;
    let mut from = 0;
    while from < length {
        let part = flat.narrow(0, from, CHUNK.min(length - from)).to_kind(Kind::Double);
        sum += part.dot(&part).double_value(&[]);
        from += CHUNK;
    }
    sum.sqrt()
}
