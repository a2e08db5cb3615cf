//! The policy gradient of scored groups: one row a group, `[prompt | y_1 | … | y_K]`, identical candidates
//! once with their count.

use medevo_collective::Collective;
use medevo_types::{
    messages::{Batch as Work, TrainGroup, UpdateWork},
    settings::LossType,
};
use tch::{Device, Tensor};

use crate::{
    engine::Engine,
    error::EngineError,
    gradient::{Figure, Sums},
    layout::{Batch, Row},
    objective::{
        TokenTerms, answer_means, averages_correction, correction, entropy_weight, sequence_old,
        token_loss, token_weight,
    },
    prompts::Prepared,
    sampling::entropy,
    score,
};

/// Weight of each token's entropy in the loss sum: none without a bonus. The bonus is a mean over the step's
/// tokens, the policy's part perhaps one over its answers. One gradient cannot be divided by both afterwards, so
/// then the ranks add up their counts first.
///
/// # Errors
/// [`EngineError::Collective`] when adding up fails.
pub(crate) fn bonus(
    work: &Work,
    device: Device,
    collective: &mut dyn Collective,
) -> Result<Option<f64>, EngineError> {
    let Work::Grpo { objective, max_new_tokens, groups, .. } = work else {
        return Ok(None);
    };
    if objective.entropy_weight == 0.0 {
        return Ok(None);
    }
    let (mut answers, mut tokens) = (0.0, 0.0);
    for answer in groups.iter().flat_map(|group| group.answers.iter()) {
        answers += f64::from(answer.count);
        tokens += f64::from(answer.count) * answer.ids.len() as f64;
    }
    // The data plane is f32: exact up to 2^24 tokens a step.
    let mut counts = Tensor::from_slice(&[answers as f32, tokens as f32]).to_device(device);
    collective.all_reduce_sum(&mut counts)?;
    let of = |at: i64| counts.double_value(&[at]);
    Ok(Some(entropy_weight(objective, of(0), of(1), *max_new_tokens)))
}

/// Adds the unnormalised gradient and figures of this rank's groups to `sums`, in the groups' order. `bonus` is
/// [`bonus`]'s.
pub(crate) fn accumulate(
    engine: &mut Engine,
    work: &UpdateWork,
    bonus: Option<f64>,
    sums: &Sums,
) -> Result<(), EngineError> {
    let Work::Grpo { rollout_policy, objective, temperature, groups, reference, .. } = &work.batch
    else {
        return Err(EngineError::refused("a policy update", "the batch is a supervised one"));
    };
    // From the second update of a rollout on. The ratio is then against the rollout, so a correction by
    // training / rollout has nothing left to correct.
    let stale = *rollout_policy != work.policy;
    let cap = if stale { 0.0 } else { objective.importance_cap };
    let by_answer = if stale { objective.by_sequence() } else { averages_correction(objective) };
    if groups.is_empty() {
        return Ok(());
    }
    for group in groups {
        check(engine, group)?;
    }
    let uses_reference = objective.beta > 0.0;
    if uses_reference {
        engine.load_reference(reference.as_deref())?;
    }
    let mut prepared: Vec<Prepared> = Vec::with_capacity(groups.len());
    for group in groups {
        prepared.push(engine.prompts.prepare(&group.prompt)?);
    }
    let rows: Vec<Row> =
        groups.iter().zip(&prepared).map(|(group, prompt)| row(group, prompt)).collect();
    let all: Vec<&Prepared> = prepared.iter().collect();
    for run in engine.micro_batches(&rows, &all)? {
        let (groups, rows) = (&groups[run.clone()], &rows[run.clone()]);
        let prompts = &all[run];
        let mut terms = Terms::new(objective.loss_type, groups);
        let reference = if uses_reference {
            engine.reference_log_probabilities(*temperature, rows, prompts)?
        } else {
            Vec::new()
        };
        let vision = engine.training_vision(prompts)?;
        if by_answer {
            // A chunk may hold only a part of an answer, so its mean is taken before; this costs a forward pass.
            let features = engine.cached_features(prompts)?;
            let (model, words) = (&engine.state()?.model, &engine.vocabulary);
            let own = score::log_probabilities(model, words, *temperature, rows, &features)?;
            terms.average(groups, &own, |own, rollout| match stale {
                true => own - rollout,
                false => correction(own, rollout, cap),
            })?;
        }
        let recompute = engine.setup.train.recompute;
        let state = engine.state()?;
        let batch = Batch::new(rows, state.device());
        let loss = |chunk: &score::Chunk| {
            let pick = |all: &[f32]| {
                let picked: Vec<f32> = chunk.tokens.iter().map(|t| all[*t as usize]).collect();
                Tensor::from_slice(&picked).to_device(chunk.logp.device())
            };
            let count = pick(&terms.count);
            let rollout = pick(&terms.rollout);
            let reference = uses_reference.then(|| pick(&reference));
            let means = terms.means.as_deref().map(pick);
            let (old, correction) = match (stale, means) {
                (true, Some(ratio)) => (Some(sequence_old(&chunk.logp, &ratio)), None),
                (true, None) => (Some(rollout.shallow_clone()), None),
                (false, Some(correction)) => (None, Some(correction)),
                (false, None) if cap > 0.0 => (None, Some(correction(&chunk.logp, &rollout, cap))),
                (false, None) => (None, None),
            };
            let all = if bonus.is_some() { chunk.all.shallow_clone() } else { chunk.all.detach() };
            let entropy = entropy(&all).index_select(0, &chunk.source);
            let result = token_loss(
                &TokenTerms {
                    logp: &chunk.logp,
                    old: old.as_ref(),
                    reference: reference.as_ref(),
                    advantage: &pick(&terms.advantage),
                    weight: &pick(&terms.weight),
                    count: &count,
                    correction: correction.as_ref(),
                    entropy: bonus.map(|weight| (&entropy, weight)),
                },
                objective,
            );
            let ratio = (chunk.logp.detach() - rollout).exp();
            sums.add(Figure::Loss, &result.loss);
            sums.add(Figure::Kl, &result.kl);
            sums.add(Figure::ClippedLow, &result.clipped_low);
            sums.add(Figure::ClippedHigh, &result.clipped_high);
            sums.add(Figure::Entropy, &entropy.dot(&count));
            sums.add(Figure::Ratio, &ratio.dot(&count));
            result.loss
        };
        let (model, words) = (&state.model, &engine.vocabulary);
        score::backward(model, words, *temperature, &batch, &vision, recompute, loss)?;
        state.take_gradients(&sums.gradient());
        sums.add_number(Figure::Tokens, terms.count.iter().map(|c| f64::from(*c)).sum());
        let answers = groups.iter().flat_map(|group| group.answers.iter());
        sums.add_number(Figure::Answers, answers.map(|answer| f64::from(answer.count)).sum());
    }
    Ok(())
}

fn row(group: &TrainGroup, prompt: &Prepared) -> Row {
    let mut row = Row::new(&prompt.tokens, prompt.length());
    for answer in group.answers.iter() {
        row.branch(&prompt.tokens, prompt.length(), &answer.ids);
    }
    row
}

/// What each answer token of some groups brings to the loss, in the batch's order.
struct Terms {
    advantage: Vec<f32>,
    weight: Vec<f32>,
    count: Vec<f32>,
    rollout: Vec<f32>,
    /// What is the same over an answer: its log-ratio in a later update of a rollout, its correction in the first.
    /// None where each token has its own, or none.
    means: Option<Vec<f32>>,
}

impl Terms {
    fn new(loss_type: LossType, groups: &[TrainGroup]) -> Self {
        let mut terms = Self {
            advantage: Vec::new(),
            weight: Vec::new(),
            count: Vec::new(),
            rollout: Vec::new(),
            means: None,
        };
        for answer in groups.iter().flat_map(|group| group.answers.iter()) {
            let tokens = answer.ids.len();
            let to = terms.count.len() + tokens;
            terms.advantage.resize(to, answer.advantage as f32);
            terms.weight.resize(to, token_weight(loss_type, answer.count, tokens));
            terms.count.resize(to, answer.count as f32);
            terms.rollout.extend_from_slice(&answer.logprobs);
        }
        terms
    }

    /// Takes `of` each token's training (`own`) and rollout log-probabilities, and its mean over each answer.
    fn average(
        &mut self,
        groups: &[TrainGroup],
        own: &[f32],
        of: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> Result<(), EngineError> {
        let answers = groups.iter().flat_map(|group| group.answers.iter());
        let lengths: Vec<i64> = answers.map(|answer| answer.ids.len() as i64).collect();
        let (own, rollout) = (Tensor::from_slice(own), Tensor::from_slice(&self.rollout));
        let means = answer_means(&of(&own, &rollout), &lengths);
        self.means = Some(Vec::try_from(means).map_err(anyhow::Error::from)?);
        Ok(())
    }
}

/// Refuses answers that could not have been drawn.
fn check(engine: &Engine, group: &TrainGroup) -> Result<(), EngineError> {
    for (number, answer) in group.answers.iter().enumerate() {
        let why = if answer.ids.is_empty() {
            "it has no tokens".to_owned()
        } else if answer.logprobs.len() != answer.ids.len() {
            format!("{} tokens but {} log-probabilities", answer.ids.len(), answer.logprobs.len())
        } else if let Some(id) = answer.ids.iter().find(|id| !engine.can_draw(**id)) {
            format!("token {id} is banned from answers, or none of the model's")
        } else {
            continue;
        };
        let what = format!("training on answer {number} of sample {}", group.prompt.sample);
        return Err(EngineError::refused(what, why));
    }
    Ok(())
}
