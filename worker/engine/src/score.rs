//! From rows to log-probabilities of their answers, with and without gradient.
//!
//! Logits exist only where an answer's token is predicted, and only for a chunk of such places at a time: in
//! training each chunk's loss is back-propagated to the hidden states before the next chunk's logits are
//! made; then the hidden states' gradient goes through the text model in one pass, and what arrives at the
//! images' features through the vision tower.

use medevo_model::Qwen25Vl;
use tch::{Device, Kind, Tensor};

use crate::{
    error::EngineError,
    features::Vision,
    layout::{Batch, Row},
    sampling::Vocabulary,
};

/// Logits of a chunk: 64 MiB in f32. About six tensors of this size exist at a time.
const LOGITS_PER_CHUNK: i64 = 1 << 24;
/// The same on the CPU, 24 MiB. Tensors above 32 MiB go back to the kernel whenever they are freed, and each of
/// their pages faults again in the next one.
const LOGITS_PER_CHUNK_CPU: i64 = 6 << 20;

/// A chunk of places: those answer tokens whose hidden states lie in it.
pub(crate) struct Chunk {
    /// Numbers of the answer tokens, ascending.
    pub tokens: Vec<i64>,
    /// Their log-probabilities `[tokens]`; carries the gradient in training.
    pub logp: Tensor,
    /// Log-probabilities of the whole vocabulary at each place `[places, vocabulary]`; carries the gradient in
    /// training.
    pub all: Tensor,
    /// For each token its row in `all`.
    pub source: Tensor,
}

/// The batch's token embeddings with the images' features in their places: `[1, T, hidden]`.
pub(crate) fn embeddings(
    model: &Qwen25Vl,
    ids: &Tensor,
    features: &[Tensor],
) -> Result<Tensor, EngineError> {
    let embeds = model.embed(ids);
    if features.is_empty() {
        return Ok(embeds);
    }
    Ok(model.place_images(&embeds, ids, features)?)
}

/// Hidden states at the places that predict: `[1, T, hidden]` to `[places, hidden]`.
fn predicting(batch: &Batch, hidden: &Tensor) -> Tensor {
    hidden.squeeze_dim(0).index_select(0, &batch.predicting)
}

/// Visits all answer tokens of a batch, chunk by chunk.
pub(crate) fn for_each_chunk(
    model: &Qwen25Vl,
    vocabulary: &Vocabulary,
    temperature: f64,
    batch: &Batch,
    hidden: &Tensor,
    mut visit: impl FnMut(&Chunk),
) {
    let (places, device) = (hidden.size()[0], hidden.device());
    let size = model.config.text.vocab_size;
    let logits = if device == Device::Cpu { LOGITS_PER_CHUNK_CPU } else { LOGITS_PER_CHUNK };
    let per_chunk = (logits / size.max(1)).max(1);
    let mut from = 0;
    while from < places {
        let to = (from + per_chunk).min(places);
        let tokens: Vec<i64> = (0..batch.source.len() as i64)
            .filter(|token| (from..to).contains(&batch.source[*token as usize]))
            .collect();
        let pick = |all: &[i64], minus: i64| {
            let picked: Vec<i64> = tokens.iter().map(|t| all[*t as usize] - minus).collect();
            Tensor::from_slice(&picked).to_device(device)
        };
        let source = pick(&batch.source, from);
        let target = pick(&batch.target, 0);
        let logits = model.logits(&hidden.narrow(0, from, to - from));
        let all = vocabulary.log_probabilities(&logits, temperature);
        let logp = all.view([-1]).index_select(0, &(&source * size + target));
        visit(&Chunk { tokens, logp, all, source });
        from = to;
    }
}

/// Log-probabilities of all answer tokens, in the batch's order, without gradient.
pub(crate) fn log_probabilities(
    model: &Qwen25Vl,
    vocabulary: &Vocabulary,
    temperature: f64,
    rows: &[Row],
    features: &[Tensor],
) -> Result<Vec<f32>, EngineError> {
    let _no_grad = tch::no_grad_guard();
    let batch = Batch::new(rows, model.parameters()[0].1.device());
    let embeds = embeddings(model, &batch.ids, features)?;
    let hidden = predicting(&batch, &model.text(&embeds, &batch.positions, &mut &batch.branches));
    let mut all = vec![0f32; batch.source.len()];
    let mut failure = None;
    for_each_chunk(model, vocabulary, temperature, &batch, &hidden, |chunk| {
        match Vec::<f32>::try_from(&chunk.logp) {
            Ok(values) => {
                for (token, value) in chunk.tokens.iter().zip(values) {
                    all[*token as usize] = value;
                }
            }
            Err(e) => failure = Some(e),
        }
    });
    match failure {
        Some(e) => Err(EngineError::Other(e.into())),
        None => Ok(all),
    }
}

/// Back-propagates the sum of the chunks' losses into the parameters.
/// `loss` turns a chunk into a scalar; it is called once a chunk. With `recompute` a layer's graph exists only
/// while it is differentiated.
pub(crate) fn backward(
    model: &Qwen25Vl,
    vocabulary: &Vocabulary,
    temperature: f64,
    batch: &Batch,
    vision: &Vision,
    recompute: bool,
    mut loss: impl FnMut(&Chunk) -> Tensor,
) -> Result<(), EngineError> {
    let (features, tower) = vision.features(model, recompute);
    let embeds = embeddings(model, &batch.ids, &features)?;
    let mut attend = &batch.branches;
    let text = model.text_pass(&embeds, &batch.positions, &mut attend, recompute);
    let hidden = predicting(batch, text.output());
    let leaf = hidden.detach().set_requires_grad(true);
    for_each_chunk(model, vocabulary, temperature, batch, &leaf, |chunk| loss(chunk).backward());
    (hidden * leaf.grad()).sum(Kind::Float).backward();
    text.backward();
    if let Some(tower) = tower {
        tower.backward();
    }
    Ok(())
}
