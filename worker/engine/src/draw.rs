//! One step's draws for all rows of the batch.

use medevo_model::Qwen25Vl;
use tch::{Device, Tensor};

use crate::{
    cohort::Cohort,
    decode::Drawing,
    error::EngineError,
    sampling::{Stream, draw, entropy},
};

/// Logits that exist at a time: 2^24 f32 numbers are 64 MiB.
const LOGITS_PER_CHUNK: usize = 1 << 24;

/// For each row, in `columns` columns, a token and its log-probability a candidate; and the row's entropy.
pub(crate) struct Step {
    pub columns: usize,
    pub ids: Vec<i64>,
    pub logprobs: Vec<f32>,
    /// Nats.
    pub entropy: Vec<f32>,
}

/// Draws the next token of every candidate of every cohort; rows follow each other cohort by cohort.
pub(crate) fn draw_step(
    model: &Qwen25Vl,
    cohorts: &[Cohort],
    streams: &mut [Vec<Stream>],
    drawing: &Drawing<'_>,
) -> Result<Step, EngineError> {
    let partials = || cohorts.iter().flat_map(|cohort| &cohort.rows);
    let rows = partials().count();
    let columns = partials().map(|partial| partial.candidates.len()).max().unwrap_or(1);
    let mut uniforms = vec![0f64; rows * columns];
    if drawing.sampling.temperature > 0.0 {
        let owned = cohorts.iter().flat_map(|cohort| cohort.rows.iter().map(move |p| (cohort, p)));
        for ((cohort, partial), row) in owned.zip(uniforms.chunks_exact_mut(columns)) {
            let streams = &mut streams[cohort.prompts[partial.place]];
            for (candidate, uniform) in partial.candidates.iter().zip(row) {
                *uniform = streams[*candidate].uniform(cohort.position);
            }
        }
    }
    let hidden: Vec<&Tensor> = cohorts.iter().map(|cohort| &cohort.hidden).collect();
    let hidden = Tensor::cat(&hidden, 0);
    let uniforms = Tensor::from_slice(&uniforms)
        .view([rows as i64, columns as i64])
        .to_device(hidden.device());
    let mut step = Step { columns, ids: Vec::new(), logprobs: Vec::new(), entropy: Vec::new() };
    let vocabulary = usize::try_from(model.config.text.vocab_size).unwrap_or(1).max(1);
    let per_chunk = (LOGITS_PER_CHUNK / vocabulary).max(1);
    for from in (0..rows).step_by(per_chunk) {
        let count = per_chunk.min(rows - from) as i64;
        let chunk = |t: &Tensor| t.narrow(0, from as i64, count);
        let logits = model.logits(&chunk(&hidden));
        let logp = drawing.vocabulary.log_probabilities(&logits, drawing.sampling.temperature);
        let ids = draw(&logp, &chunk(&uniforms), drawing.sampling);
        step.logprobs.extend(read::<f32>(&logp.gather(1, &ids, false))?);
        step.entropy.extend(read::<f32>(&entropy(&logp))?);
        step.ids.extend(read::<i64>(&ids)?);
    }
    if step.logprobs.iter().any(|logprob| logprob.is_nan()) {
        return Err(EngineError::NotFinite {
            what: "a token's log-probability in a rollout".into(),
        });
    }
    Ok(step)
}

fn read<T: tch::kind::Element + Copy>(t: &Tensor) -> Result<Vec<T>, EngineError>
where
    Vec<T>: TryFrom<Tensor, Error = tch::TchError>,
{
    let flat = t.to_device(Device::Cpu).contiguous().view(-1);
    Ok(Vec::<T>::try_from(flat).map_err(anyhow::Error::from)?)
}
