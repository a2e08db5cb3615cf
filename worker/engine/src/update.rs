//! The gradient of a step: reinforcement learning on scored groups, or supervised learning.

use medevo_collective::Collective;
use medevo_types::messages::{Ballot, Batch as Work, UpdateWork};

use crate::{
    engine::Engine,
    error::EngineError,
    gradient::{Figure, Kept, Sums},
    grpo, objective, sft,
};

impl Engine {
    /// Computes this rank's share of a gradient, reduces it over the ranks, and keeps it. Nothing is applied.
    /// A rank whose share is empty takes part with zeros.
    ///
    /// # Errors
    /// [`EngineError::Stale`] when other weights are held, [`EngineError::Refused`] when an example cannot
    /// be trained on (its sample is named; the other ranks then see a gradient that is not finite), and
    /// [`EngineError::Collective`] when the reduction fails.
    pub fn update(
        &mut self,
        work: &UpdateWork,
        collective: &mut dyn Collective,
    ) -> Result<Ballot, EngineError> {
        self.discard();
        let what = format!("the update of step {}", work.step);
        self.expect_policy(&what, work.policy)?;
        let shard = self.take_shard(collective)?;
        let device = self.state()?.device();
        let bonus = grpo::bonus(&work.batch, device, collective)?;
        let mut sums = Sums::zeros(shard, device);
        let computed = match &work.batch {
            Work::Grpo { .. } => grpo::accumulate(self, work, bonus, &sums),
            Work::Sft { examples } => sft::accumulate(self, examples, &sums),
        };
        if computed.is_err() {
            // What a failed backward pass left behind must not leak into the next attempt.
            self.state()?.take_gradients(&sums.gradient());
            sums.poison();
        }
        let reduced = sums.reduce(collective);
        if let Err(error) = computed {
            if let (false, Ok((gradient, _))) = (shard.is_whole(), reduced) {
                // The peers tell each other what they see of their parts, and must not wait for this rank.
                let _ = Kept::new(work, shard, gradient, 1.0, collective);
            }
            return Err(error);
        }
        let (gradient, total) = reduced?;

        let of = |figure: Figure| total[figure as usize];
        let (tokens, answers) = (of(Figure::Tokens), of(Figure::Answers));
        let normaliser = match &work.batch {
            Work::Grpo { objective, max_new_tokens, .. } => {
                objective::normaliser(objective.loss_type, answers, tokens, *max_new_tokens)
            }
            Work::Sft { .. } => tokens.max(1.0),
        };
        let mut figures = vec![("loss".to_owned(), of(Figure::Loss) / normaliser)];
        if matches!(work.batch, Work::Grpo { .. }) {
            let per_token = tokens.max(1.0);
            figures.push(("kl".to_owned(), of(Figure::Kl) / per_token));
            figures.push(("entropy".to_owned(), of(Figure::Entropy) / per_token));
            let (low, high) = (of(Figure::ClippedLow), of(Figure::ClippedHigh));
            figures.push(("clip_fraction".to_owned(), (low + high) / per_token));
            figures.push(("clip_low_fraction".to_owned(), low / per_token));
            figures.push(("clip_high_fraction".to_owned(), high / per_token));
            figures.push(("ratio_mean".to_owned(), of(Figure::Ratio) / per_token));
        }
        figures.push(("tokens".to_owned(), tokens));
        figures.push(("answers".to_owned(), answers));

        let kept = Kept::new(work, shard, gradient, normaliser, collective)?;
        let finite = kept.finite && of(Figure::Loss).is_finite();
        let ballot =
            Ballot { gradient: kept.digest.clone(), finite, grad_norm: kept.norm, figures };
        if finite {
            self.kept = Some(kept);
        }
        Ok(ballot)
    }
}
