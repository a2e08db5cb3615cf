//! The policy objective on flat per-token tensors, as TRL's `GRPOTrainer._compute_loss` defines it for
//! `loss_type` grpo, dapo and dr_grpo; a test holds loss and gradient against TRL's numbers.
//!
//! Everything here is a *sum*; the division by the step's global counts ([`normaliser`]) comes after the
//! all-reduce, so that the result does not depend on how groups are spread over ranks and micro-batches.

use medevo_types::settings::{LossType, Objective};
use tch::{Kind, Tensor};

/// Per-token inputs. All are `[tokens]`, f32.
#[derive(Debug)]
pub struct TokenTerms<'a> {
    /// Log-probabilities under the policy being trained; carries the gradient.
    pub logp: &'a Tensor,
    /// Log-probabilities under the policy that the ratio is taken against; none means the policy itself
    /// (one update a rollout), so the ratio is 1 and its gradient that of logp.
    pub old: Option<&'a Tensor>,
    /// Log-probabilities under the KL reference; needed when beta > 0.
    pub reference: Option<&'a Tensor>,
    /// Advantage of the token's answer.
    pub advantage: &'a Tensor,
    /// Weight of the token in the loss sum, see [`token_weight`].
    pub weight: &'a Tensor,
    /// How many identical candidates the token stands for; weights the figures.
    pub count: &'a Tensor,
}

/// What [`token_loss`] returns: scalars, all sums over tokens.
#[derive(Debug)]
pub struct LossSums {
    /// Weighted sum of the loss; carries the gradient.
    pub loss: Tensor,
    /// k3 estimate of KL(policy ‖ reference), count-weighted; 0 without a reference. Detached.
    pub kl: Tensor,
    /// Count of clipped tokens. Detached.
    pub clipped: Tensor,
}

/// `Σ w · (−min(ρA, clip(ρ, 1−ε_low, 1+ε_high)·A) + β·k3)` with `ρ = exp(logp − old)` and
/// `k3 = exp(ref − logp) − (ref − logp) − 1`.
#[must_use]
pub fn token_loss(terms: &TokenTerms<'_>, objective: &Objective) -> LossSums {
    let own = terms.logp.detach();
    let ratio = (terms.logp - terms.old.unwrap_or(&own)).exp();
    let clipped_ratio = ratio.clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high);
    let gain = (&ratio * terms.advantage).minimum(&(clipped_ratio * terms.advantage));
    let mut loss = -gain;
    let mut kl_sum = Tensor::zeros([], (Kind::Float, terms.logp.device()));
    if objective.beta > 0.0
        && let Some(reference) = terms.reference
    {
        let gap = reference - terms.logp;
        let kl = gap.exp() - gap - 1.0;
        kl_sum = (kl.detach() * terms.count).sum(Kind::Float);
        loss += kl * objective.beta;
    }
    let ratio = ratio.detach();
    let low = ratio.lt(1.0 - objective.clip_low).logical_and(&terms.advantage.lt(0.0));
    let high = ratio.gt(1.0 + objective.clip_high).logical_and(&terms.advantage.gt(0.0));
    let clipped = low.logical_or(&high).to_kind(Kind::Float);
    LossSums {
        loss: (loss * terms.weight).sum(Kind::Float),
        kl: kl_sum,
        clipped: (clipped * terms.count).sum(Kind::Float),
    }
}

/// Weight of each token of an answer of `tokens` tokens that `count` candidates gave.
#[must_use]
pub fn token_weight(loss_type: LossType, count: u32, tokens: usize) -> f32 {
    match loss_type {
        LossType::Grpo => count as f32 / tokens.max(1) as f32,
        LossType::Dapo | LossType::DrGrpo => count as f32,
    }
}

/// What the summed loss and gradient are divided by. `answers` and `tokens` count the whole step over all
/// ranks, identical candidates as often as they occurred.
#[must_use]
pub fn normaliser(loss_type: LossType, answers: f64, tokens: f64, max_new_tokens: usize) -> f64 {
    let by = match loss_type {
        LossType::Grpo => answers,
        LossType::Dapo => tokens,
        LossType::DrGrpo => answers * max_new_tokens as f64,
    };
    by.max(1.0)
}
