//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), in torch.optim.AdamW's order of
//! operations; a test holds it against torch's numbers. Written here because libtorch's own optimizer hides
//! its moments, and a run that restores or hands them over needs them.

use medevo_types::settings::OptimizerSettings;
use tch::{Device, Kind, Tensor};

/// First and second moments of all trained parameters, laid end to end, and the steps behind them.
#[derive(Debug)]
pub struct Moments {
    /// `[trained numbers]`, f32.
    pub first: Tensor,
    /// `[trained numbers]`, f32.
    pub second: Tensor,
    /// Steps taken since the moments were zero: what the bias correction counts.
    pub steps: u64,
}

impl Moments {
    /// Zero moments for `length` numbers.
    #[must_use]
    pub fn zeros(length: i64, device: Device) -> Self {
        let zeros = || Tensor::zeros([length], (Kind::Float, device));
        Self { first: zeros(), second: zeros(), steps: 0 }
    }

    /// Back to zero, as at a stage's start.
    pub fn reset(&mut self) {
        let _ = self.first.zero_();
        let _ = self.second.zero_();
        self.steps = 0;
    }
}

/// One step's constants. Made once a step, then used for each parameter.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    beta1: f64,
    beta2: f64,
    eps: f64,
    keep: f64,
    rate: f64,
    root_correction: f64,
}

impl AdamStep {
    /// Constants of step `steps` (from 1) at learning rate `lr`.
    #[must_use]
    pub fn new(settings: &OptimizerSettings, lr: f64, steps: u64) -> Self {
        let steps = steps as f64;
        Self {
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
            keep: 1.0 - lr * settings.weight_decay,
            rate: lr / (1.0 - settings.beta1.powf(steps)),
            root_correction: (1.0 - settings.beta2.powf(steps)).sqrt(),
        }
    }

    /// Moves one parameter and its moments. All are f32 and of one shape.
    pub fn apply(
        &self,
        weight: &mut Tensor,
        gradient: &Tensor,
        first: &mut Tensor,
        second: &mut Tensor,
    ) {
        tch::no_grad(|| {
            if self.keep != 1.0 {
                let _ = weight.g_mul_scalar_(self.keep);
            }
            let _ = first.lerp_(gradient, 1.0 - self.beta1);
            let _ = second.g_mul_scalar_(self.beta2);
            let _ = second.addcmul_(gradient, &(gradient * (1.0 - self.beta2)));
            let mut step = second.sqrt();
            let _ = step.g_div_scalar_(self.root_correction);
            let _ = step.g_add_scalar_(self.eps);
            let _ = step.reciprocal_();
            let _ = step.g_mul_scalar_(-self.rate);
            let _ = weight.addcmul_(first, &step);
        });
    }
}

/// The factor that brings a gradient of global norm `norm` down to `limit`; 1 when it is short enough or
/// `limit` is 0. As `torch.nn.utils.clip_grad_norm_` computes it, rounded to f32 so that ranks whose norms
/// differ in the last f64 bit still scale alike.
#[must_use]
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit <= 0.0 {
        return 1.0;
    }
    f64::from((limit / (norm + 1e-6)).min(1.0) as f32)
}
