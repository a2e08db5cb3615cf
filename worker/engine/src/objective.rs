//! The policy objective on flat per-token tensors, as TRL's `GRPOTrainer._compute_loss` defines it for
//! each of our `loss_type`s; a test holds loss and gradient against TRL's numbers.
//!
//! A ratio over a whole answer ([`Objective::by_sequence`]) needs no loss of its own. All that such an answer's
//! tokens bring to the loss is the same, so the gradient through the mean of their log-ratios, summed over the
//! tokens, is what each token gets through its own log-probability while only the ratio's *value* is the
//! answer's. [`sequence_old`] says which old log-probabilities do that, and [`answer_means`] makes a correction
//! constant over an answer. So an answer may be cut into chunks at either level.
//!
//! The first update of a rollout is at the weights that drew it: it has no old log-probabilities, the ratio is
//! exactly 1. Later ones (`num_iterations`) take the rollout's own. TRL takes those of a training pass at the
//! rollout's weights; ours mean the same (`sampling.rs`), so the two differ by rounding.
//!
//! Everything here is a *sum*; the division by the step's global counts ([`normaliser`]) comes after the
//! all-reduce, so that the result does not depend on how groups are spread over ranks and micro-batches.

use medevo_types::settings::{KlEstimator, LossType, Objective};
use tch::{Kind, Tensor};

/// Per-token inputs. All are `[tokens]`, f32.
#[derive(Debug)]
pub struct TokenTerms<'a> {
    /// Log-probabilities under the policy being trained; carries the gradient.
    pub logp: &'a Tensor,
    /// Log-probabilities under the policy that the ratio is taken against; none means the policy itself
    /// (the first update of a rollout), so the ratio is 1 and its gradient that of logp. For a ratio over whole
    /// answers see [`sequence_old`].
    pub old: Option<&'a Tensor>,
    /// Log-probabilities under the KL reference; needed when beta > 0.
    pub reference: Option<&'a Tensor>,
    /// Advantage of the token's answer.
    pub advantage: &'a Tensor,
    /// Weight of the token in the loss sum, see [`token_weight`].
    pub weight: &'a Tensor,
    /// How many identical candidates the token stands for; weights the figures.
    pub count: &'a Tensor,
    /// Factor of the policy's part of the loss (not of the KL's), see [`correction`]; none means 1.
    pub correction: Option<&'a Tensor>,
    /// Entropy of the distribution that the token was drawn from, nats, and its weight in the loss sum, see
    /// [`entropy_weight`]; carries the gradient.
    pub entropy: Option<(&'a Tensor, f64)>,
}

/// What [`token_loss`] returns: scalars, all sums over tokens.
#[derive(Debug)]
pub struct LossSums {
    /// Weighted sum of the loss; carries the gradient.
    pub loss: Tensor,
    /// Estimate of KL(policy ‖ reference), count-weighted; 0 without a reference. Detached.
    pub kl: Tensor,
    /// Count of tokens whose ratio lies below the lower clip and would be raised. Detached.
    pub clipped_low: Tensor,
    /// Count of tokens whose ratio lies above the upper clip and would be lowered. Detached.
    pub clipped_high: Tensor,
}

/// `Σ w · (−c · min(ρA, clip(ρ, 1−ε_low, 1+ε_high)·A) + β·KL) − λ · Σ count · H` with `ρ = exp(logp − old)`,
/// the correction c, and the KL as `kl_estimator` says. For cispo the policy's part is
/// `−c · min(ρ, ε_high) · A · logp` with the ratio held constant.
#[must_use]
pub fn token_loss(terms: &TokenTerms<'_>, objective: &Objective) -> LossSums {
    let own = terms.logp.detach();
    let ratio = (terms.logp - terms.old.unwrap_or(&own)).exp();
    let gain = if objective.loss_type == LossType::Cispo {
        ratio.detach().clamp_max(objective.clip_high) * terms.advantage * terms.logp
    } else {
        let clipped_ratio = ratio.clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high);
        (&ratio * terms.advantage).minimum(&(clipped_ratio * terms.advantage))
    };
    let mut loss = -gain;
    if let Some(correction) = terms.correction {
        loss *= correction;
    }
    let mut kl_sum = Tensor::zeros([], (Kind::Float, terms.logp.device()));
    if objective.beta > 0.0
        && let Some(reference) = terms.reference
    {
        let gap = reference - terms.logp;
        let kl = match objective.kl_estimator {
            KlEstimator::K1 => -gap,
            KlEstimator::K2 => gap.square() * 0.5,
            KlEstimator::K3 => gap.exp() - gap - 1.0,
        };
        kl_sum = (kl.detach() * terms.count).sum(Kind::Float);
        loss += kl * objective.beta;
    }
    let mut loss = (loss * terms.weight).sum(Kind::Float);
    if let Some((entropy, weight)) = terms.entropy {
        loss -= entropy.dot(terms.count) * weight;
    }
    let count = |tokens: Tensor| (tokens.to_kind(Kind::Float) * terms.count).sum(Kind::Float);
    let (low, high) = clipped(&ratio.detach(), terms.advantage, objective);
    LossSums { loss, kl: kl_sum, clipped_low: count(low), clipped_high: count(high) }
}

/// Which tokens' gradient the lower and the upper clip take away (cispo: bound, and only above).
fn clipped(ratio: &Tensor, advantage: &Tensor, objective: &Objective) -> (Tensor, Tensor) {
    let above = |bound: f64| ratio.gt(bound).logical_and(&advantage.gt(0.0));
    if objective.loss_type == LossType::Cispo {
        return (ratio.zeros_like(), above(objective.clip_high));
    }
    let low = ratio.lt(1.0 - objective.clip_low).logical_and(&advantage.lt(0.0));
    (low, above(1.0 + objective.clip_high))
}

/// The mean over each answer, at each of its tokens. values `[tokens]` -> `[tokens]`; `lengths` are those of
/// the answers that lie in `values` one after the other, at least 1 each and `tokens` together.
pub fn answer_means(values: &Tensor, lengths: &[i64]) -> Tensor {
    let parts = values.split_with_sizes(lengths, 0);
    let means: Vec<Tensor> =
        parts.iter().map(|part| part.mean(Kind::Float).expand_as(part)).collect();
    Tensor::cat(&means, 0)
}

/// What stands for [`TokenTerms::old`] when a ratio is taken over whole answers. `means` are the [`answer_means`]
/// of the tokens' log-ratios, so `logp` may be that of a part of an answer. All `[tokens]`.
pub fn sequence_old(logp: &Tensor, means: &Tensor) -> Tensor {
    logp.detach() - means
}

/// Truncated importance weights `min(exp(logp − rollout), cap)` of tokens that were drawn with log-probability
/// `rollout`; detached. All `[tokens]`. Where [`averages_correction`] holds, give [`answer_means`] of them to
/// [`token_loss`].
pub fn correction(logp: &Tensor, rollout: &Tensor, cap: f64) -> Tensor {
    (logp.detach() - rollout).exp().clamp_max(cap)
}

/// Whether every token of an answer gets the mean of the answer's corrections. It does where they multiply a
/// ratio that belongs to the whole answer; cispo's log-probabilities stay each token's own.
#[must_use]
pub fn averages_correction(objective: &Objective) -> bool {
    objective.importance_cap > 0.0
        && objective.by_sequence()
        && objective.loss_type != LossType::Cispo
}

/// Weight of each token of an answer of `tokens` tokens that `count` candidates gave.
#[must_use]
pub fn token_weight(loss_type: LossType, count: u32, tokens: usize) -> f32 {
    match loss_type {
        LossType::Grpo | LossType::Gspo => count as f32 / tokens.max(1) as f32,
        LossType::Dapo | LossType::DrGrpo | LossType::Bnpo | LossType::Cispo => count as f32,
    }
}

/// What the summed loss and gradient are divided by. `answers` and `tokens` count the whole step over all
/// ranks, identical candidates as often as they occurred.
#[must_use]
pub fn normaliser(loss_type: LossType, answers: f64, tokens: f64, max_new_tokens: usize) -> f64 {
    let by = match loss_type {
        LossType::Grpo | LossType::Gspo => answers,
        LossType::Dapo | LossType::Bnpo | LossType::Cispo => tokens,
        LossType::DrGrpo => answers * max_new_tokens as f64,
    };
    by.max(1.0)
}

/// Weight of an answer token's entropy in the loss sum, such that after the division by [`normaliser`] the bonus
/// is the mean over all tokens of the step. Arguments as there.
#[must_use]
pub fn entropy_weight(
    objective: &Objective,
    answers: f64,
    tokens: f64,
    max_new_tokens: usize,
) -> f64 {
    let by = normaliser(objective.loss_type, answers, tokens, max_new_tokens);
    objective.entropy_weight * by / tokens.max(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise

    use super::*;

    /// Normalised loss and gradient of answers at ratio 1, without KL: (tokens, advantage, count) each.
    fn on_policy(loss_type: LossType, answers: &[(usize, f32, u32)]) -> (f64, Vec<f32>) {
        let (mut advantage, mut weight, mut count) = (Vec::new(), Vec::new(), Vec::new());
        for (tokens, a, times) in answers {
            advantage.extend(vec![*a; *tokens]);
            weight.extend(vec![token_weight(loss_type, *times, *tokens); *tokens]);
            count.extend(vec![*times as f32; *tokens]);
        }
        let logp: Vec<f32> = (0..count.len()).map(|at| -0.1 - (at % 7) as f32 * 0.3).collect();
        let logp = Tensor::from_slice(&logp).set_requires_grad(true);
        let objective = Objective { loss_type, beta: 0.0, clip_high: 1.0, ..Objective::default() };
        let sums = token_loss(
            &TokenTerms {
                logp: &logp,
                old: None,
                reference: None,
                advantage: &Tensor::from_slice(&advantage),
                weight: &Tensor::from_slice(&weight),
                count: &Tensor::from_slice(&count),
                correction: None,
                entropy: None,
            },
            &objective,
        );
        let times: u32 = answers.iter().map(|(_, _, times)| times).sum();
        let tokens: f32 = count.iter().sum();
        let by = normaliser(loss_type, f64::from(times), f64::from(tokens), 9);
        let loss = sums.loss / by;
        loss.backward();
        assert_eq!((sums.clipped_low + sums.clipped_high).double_value(&[]), 0.0);
        (loss.double_value(&[]), Vec::try_from(logp.grad()).unwrap())
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs()))
    }

    proptest::proptest! {
        /// On policy the losses differ in how they average and in nothing else. Broken, choosing a loss would
        /// also choose a learning rate.
        #[test]
        fn on_policy_losses_of_one_normalisation_coincide(
            answers in proptest::collection::vec((1_usize..9, -2f32..2.0, 1_u32..5), 1..6),
            length in 1_usize..9,
        ) {
            let by_token = on_policy(LossType::Dapo, &answers);
            assert_eq!(on_policy(LossType::Bnpo, &answers), by_token);
            // Its value is that of a weighted log-likelihood; what it teaches is the same.
            assert!(close(&on_policy(LossType::Cispo, &answers).1, &by_token.1));
            let by_answer = on_policy(LossType::Grpo, &answers);
            assert_eq!(on_policy(LossType::Gspo, &answers), by_answer);

            let even: Vec<_> = answers.iter().map(|(_, a, times)| (length, *a, *times)).collect();
            let (by_token, by_answer) =
                (on_policy(LossType::Dapo, &even), on_policy(LossType::Grpo, &even));
            assert!(close(&by_token.1, &by_answer.1));
            let fixed: Vec<f32> = on_policy(LossType::DrGrpo, &even)
                .1
                .iter()
                .map(|g| g * 9.0 / length as f32)
                .collect();
            assert!(close(&fixed, &by_token.1));
        }
    }
}
