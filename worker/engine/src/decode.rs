//! Drawing the candidates of any number of prompts within a budget of tokens.
//!
//! Prompts are prefilled once, a [`Cohort`] at a time. The linear layers run all cohorts' rows as one batch and
//! only attention is each cohort's own, so prompts join and leave without a copy of what is there. The room
//! that finished prompts give back goes to those that wait, while the others go on.

use medevo_model::Qwen25Vl;
use medevo_types::settings::Sampling;
use tch::Tensor;

use crate::{
    batching::Waiting,
    cohort::{Cohort, Together},
    draw::draw_step,
    error::EngineError,
    features::FeatureCache,
    prompts::Prepared,
    sampling::{Stream, Vocabulary},
};

/// What to draw.
pub(crate) struct Drawing<'a> {
    pub vocabulary: &'a Vocabulary,
    pub sampling: &'a Sampling,
    /// End an answer.
    pub stop_ids: &'a [u32],
    /// Whether to return features.
    pub features: bool,
    /// Tokens of keys and values that may exist at a time.
    pub budget: usize,
}

/// A drawn answer before it becomes text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drawn {
    pub ids: Vec<u32>,
    pub logprobs: Vec<f32>,
    /// Sum over its tokens of the policy's entropy, nats.
    pub entropy: f64,
    pub finished: bool,
    pub feature: Option<Vec<f32>>,
}

/// How full the batch was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Cohorts that were prefilled.
    pub cohorts: usize,
    /// Passes of the text model over drawn tokens.
    pub passes: usize,
    /// Rows in all passes together. Each is the next token of a partial answer: none is padding.
    pub rows: usize,
}

/// Draws one answer for each stream of each prompt, at most `sampling.n` a prompt. Streams are
/// `[prompt][candidate]`, and so is the result.
pub(crate) fn draw_answers(
    model: &Qwen25Vl,
    images: &mut FeatureCache,
    prompts: &[Prepared],
    mut streams: Vec<Vec<Stream>>,
    drawing: &Drawing<'_>,
) -> Result<(Vec<Vec<Drawn>>, Occupancy), EngineError> {
    let _no_grad = tch::no_grad_guard();
    let longest = drawing.sampling.max_new_tokens;
    let lengths = prompts.iter().map(Prepared::length).collect();
    let mut waiting = Waiting::new(lengths, drawing.sampling.n * longest, drawing.budget);
    let mut drawn: Vec<Vec<Drawn>> =
        streams.iter().map(|group| vec![Drawn::default(); group.len()]).collect();
    let mut occupancy = Occupancy::default();
    let mut cohorts: Vec<Cohort> = Vec::new();
    loop {
        let held = cohorts.iter().map(Cohort::tokens).sum();
        let joining = waiting.admit(held);
        if !joining.is_empty() {
            let theirs: Vec<&Prepared> = joining.iter().map(|number| &prompts[*number]).collect();
            let features = images.of(model, &theirs)?;
            cohorts.push(Cohort::new(model, prompts, joining, &features, drawing)?);
            occupancy.cohorts += 1;
        }
        if cohorts.is_empty() {
            return Ok((drawn, occupancy));
        }
        let step = draw_step(model, &cohorts, &mut streams, drawing)?;
        let mut tokens = Vec::new();
        let mut from = 0;
        for cohort in &mut cohorts {
            let rows = cohort.rows.len();
            tokens.extend(cohort.branch(&step, from, &mut drawn, drawing)?);
            from += rows;
        }
        cohorts.retain(|cohort| !cohort.rows.is_empty());
        if cohorts.is_empty() {
            continue;
        }
        occupancy.passes += 1;
        occupancy.rows += tokens.len();
        let hidden = feed(model, &tokens, &mut cohorts);
        let mut from = 0;
        for cohort in &mut cohorts {
            let rows = cohort.rows.len() as i64;
            cohort.advance(hidden.narrow(0, from, rows), &mut drawn, longest)?;
            from += rows;
        }
        cohorts.retain(|cohort| !cohort.rows.is_empty());
    }
}

/// Runs the text model on each row's new token: `[rows, hidden]`.
fn feed(model: &Qwen25Vl, tokens: &[i64], cohorts: &mut [Cohort]) -> Tensor {
    let rows = tokens.len() as i64;
    let places: Vec<i64> = cohorts.iter().flat_map(Cohort::positions).collect();
    let device = model.parameters()[0].1.device();
    let tokens = Tensor::from_slice(tokens).view([rows, 1]).to_device(device);
    let places = Tensor::from_slice(&places).view([1, rows, 1]).expand([3, rows, 1], false);
    let places = places.contiguous().to_device(device);
    let mut together = Together(cohorts);
    model.text(&model.embed(&tokens), &places, &mut together).view([rows, -1])
}

#[cfg(test)]
mod tests;
