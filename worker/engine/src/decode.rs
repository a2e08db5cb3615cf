//! Drawing the candidates of several prompts as one batch.
//!
//! Each prompt is prefilled once. Candidates that have drawn the same tokens so far are one *partial answer*:
//! it is decoded once and its candidates part when their draws do, so N candidates cost as much as the
//! distinct answers among them. Partial answers that have ended leave the batch, and so do prompts.

use medevo_model::{Attend, Qwen25Vl};
use medevo_types::settings::Sampling;
use tch::{Device, Kind, Tensor};

use crate::{
    attention::{Decode, Prefill},
    error::EngineError,
    prompts::Prepared,
    sampling::{Stream, Vocabulary, draw, entropy},
};

/// What to draw.
pub(crate) struct Drawing<'a> {
    pub vocabulary: &'a Vocabulary,
    pub sampling: &'a Sampling,
    /// End an answer.
    pub stop_ids: &'a [u32],
    /// Whether to return features.
    pub features: bool,
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

/// Candidates that share all tokens drawn so far.
type Partial = Vec<usize>;

/// The arrangement of partial answers in the batch: `width` slots a prompt, empty ones at the end.
struct Arrangement {
    /// Prompts still in the batch, as numbers of the unit's prompts.
    prompts: Vec<usize>,
    width: usize,
    slots: Vec<Option<Partial>>,
}

/// The next arrangement, and how it comes from the last one.
struct Next {
    arrangement: Arrangement,
    /// Prompts of the last arrangement that go on; none when all do.
    keep: Option<Vec<i64>>,
    /// For each new slot, the old one that it continues.
    parents: Vec<i64>,
    /// For each new slot, the token that it adds.
    tokens: Vec<i64>,
}

/// Draws one answer for each stream of each prompt. `features` are the images' features in order.
/// Streams are `[prompt][candidate]`, and so is the result.
pub(crate) fn draw_answers(
    model: &Qwen25Vl,
    prompts: &[&Prepared],
    features: &[Tensor],
    mut streams: Vec<Vec<Stream>>,
    drawing: &Drawing<'_>,
) -> Result<Vec<Vec<Drawn>>, EngineError> {
    let _no_grad = tch::no_grad_guard();
    let longest = drawing.sampling.max_new_tokens;
    let mut drawn: Vec<Vec<Drawn>> =
        streams.iter().map(|group| vec![Drawn::default(); group.len()]).collect();
    let widest = streams.iter().map(Vec::len).max().unwrap_or(0);
    let (mut hidden, layers) = prefill(model, prompts, features)?;
    let device = hidden.device();
    let lengths: Vec<i64> = prompts.iter().map(|prompt| prompt.length() as i64).collect();
    let mut cache = Decode::new(layers, &lengths, widest as i64, longest as i64);
    let mut now = Arrangement {
        prompts: (0..prompts.len()).collect(),
        width: 1,
        slots: streams.iter().map(|group| Some((0..group.len()).collect())).collect(),
    };
    // Sum of the last hidden states over each partial answer's tokens, `[slots, hidden]` f32.
    let mut sums = hidden.to_kind(Kind::Float).zeros_like();

    for position in 0..longest {
        let step = draw_step(model, &hidden, &now, &mut streams, position, drawing, device)?;
        let mut ended = Vec::new();
        let next = branch(&now, &step, &mut drawn, drawing, &mut ended);
        if drawing.features {
            let states =
                if position == 0 { hidden.to_kind(Kind::Float) } else { &sums / position as f64 };
            collect_features(&states, &ended, &mut drawn)?;
        }
        let Some(next) = next else { break };
        let last = position + 1 == longest;
        if last && !drawing.features {
            break;
        }
        let unchanged = next.keep.is_none()
            && next.arrangement.width == now.width
            && next.parents.iter().enumerate().all(|(row, parent)| row as i64 == *parent);
        if !unchanged || position == 0 {
            cache.rearrange(next.keep.as_deref(), &next.parents, next.arrangement.width as i64);
        }
        hidden = feed(model, prompts, &next, position, &mut cache, device);
        cache.advance();
        now = next.arrangement;
        if drawing.features {
            let parents = Tensor::from_slice(&next.parents).to_device(device);
            sums = sums.index_select(0, &parents) + hidden.to_kind(Kind::Float);
            if last {
                let cut: Vec<(usize, usize, i64)> = now.candidates().collect();
                collect_features(&(&sums / longest as f64), &cut, &mut drawn)?;
            }
        }
    }
    Ok(drawn)
}

impl Arrangement {
    /// (prompt, candidate, slot) of everything in the batch.
    fn candidates(&self) -> impl Iterator<Item = (usize, usize, i64)> + '_ {
        self.slots.iter().enumerate().flat_map(move |(slot, partial)| {
            let prompt = self.prompts[slot / self.width];
            partial.iter().flatten().map(move |candidate| (prompt, *candidate, slot as i64))
        })
    }
}

/// Hidden states at the prompts' last tokens `[prompts, hidden]`, and each layer's keys and values.
type Prefilled = (Tensor, Vec<(Tensor, Tensor)>);

fn prefill(
    model: &Qwen25Vl,
    prompts: &[&Prepared],
    features: &[Tensor],
) -> Result<Prefilled, EngineError> {
    let rows: Vec<crate::layout::Row> = prompts
        .iter()
        .map(|prompt| crate::layout::Row::new(&prompt.tokens, prompt.length()))
        .collect();
    let device = model.parameters()[0].1.device();
    let (ids, positions) = crate::layout::stack(&rows, device);
    let mut keep = Prefill::default();
    let hidden = run_text(model, &ids, &positions, features, &mut keep)?;
    let length = ids.size()[1];
    let last: Vec<i64> = prompts
        .iter()
        .enumerate()
        .map(|(row, prompt)| row as i64 * length + prompt.length() as i64 - 1)
        .collect();
    let width = hidden.size()[2];
    let last = Tensor::from_slice(&last).to_device(device);
    Ok((hidden.view([-1, width]).index_select(0, &last), keep.layers))
}

/// Embeds, places the images' features and runs the text model: ids `[B, L]` -> `[B, L, hidden]`.
pub(crate) fn run_text(
    model: &Qwen25Vl,
    ids: &Tensor,
    positions: &Tensor,
    features: &[Tensor],
    attend: &mut dyn Attend,
) -> Result<Tensor, EngineError> {
    let embeds = model.embed(ids);
    let embeds =
        if features.is_empty() { embeds } else { model.place_images(&embeds, ids, features)? };
    Ok(model.text(&embeds, positions, attend))
}

/// One step's draws: for each slot, in `columns` columns, a token and its log-probability a candidate.
struct Step {
    columns: usize,
    ids: Vec<i64>,
    logprobs: Vec<f32>,
    entropy: Vec<f32>,
}

fn draw_step(
    model: &Qwen25Vl,
    hidden: &Tensor,
    now: &Arrangement,
    streams: &mut [Vec<Stream>],
    position: usize,
    drawing: &Drawing<'_>,
    device: Device,
) -> Result<Step, EngineError> {
    let columns = now.slots.iter().flatten().map(Vec::len).max().unwrap_or(1);
    let mut uniforms = vec![0f64; now.slots.len() * columns];
    if drawing.sampling.temperature > 0.0 {
        for (slot, partial) in now.slots.iter().enumerate() {
            let prompt = now.prompts[slot / now.width];
            for (column, candidate) in partial.iter().flatten().enumerate() {
                uniforms[slot * columns + column] = streams[prompt][*candidate].uniform(position);
            }
        }
    }
    let uniforms = Tensor::from_slice(&uniforms)
        .view([now.slots.len() as i64, columns as i64])
        .to_device(device);
    let logits = model.logits(hidden);
    let logp = drawing.vocabulary.log_probabilities(&logits, drawing.sampling.temperature);
    let ids = draw(&logp, &uniforms, drawing.sampling);
    let chosen = logp.gather(1, &ids, false);
    let entropy = entropy(&logp);
    let read = |t: &Tensor| Vec::<f32>::try_from(t.contiguous().view(-1));
    let logprobs = read(&chosen).map_err(anyhow::Error::from)?;
    let entropy = read(&entropy).map_err(anyhow::Error::from)?;
    if logprobs.iter().any(|logprob| logprob.is_nan()) {
        return Err(EngineError::NotFinite {
            what: "a token's log-probability in a rollout".into(),
        });
    }
    let ids = Vec::<i64>::try_from(ids.contiguous().view(-1)).map_err(anyhow::Error::from)?;
    Ok(Step { columns, ids, logprobs, entropy })
}

/// Books the draws and arranges what goes on; `ended` gets (prompt, candidate, slot) of answers that a stop
/// token has just ended. None when nothing goes on.
fn branch(
    now: &Arrangement,
    step: &Step,
    drawn: &mut [Vec<Drawn>],
    drawing: &Drawing<'_>,
    ended: &mut Vec<(usize, usize, i64)>,
) -> Option<Next> {
    // By prompt: (old slot, token, candidates).
    let mut children: Vec<Vec<(i64, i64, Partial)>> = vec![Vec::new(); now.prompts.len()];
    for (slot, partial) in now.slots.iter().enumerate() {
        let place = slot / now.width;
        let prompt = now.prompts[place];
        let first_child = children[place].len();
        for (column, candidate) in partial.iter().flatten().enumerate() {
            let token = step.ids[slot * step.columns + column];
            let answer = &mut drawn[prompt][*candidate];
            answer.ids.push(token as u32);
            answer.logprobs.push(step.logprobs[slot * step.columns + column]);
            answer.entropy += f64::from(step.entropy[slot]);
            if drawing.stop_ids.contains(&(token as u32)) {
                answer.finished = true;
                ended.push((prompt, *candidate, slot as i64));
                continue;
            }
            let known = children[place][first_child..].iter_mut().find(|child| child.1 == token);
            match known {
                Some(child) => child.2.push(*candidate),
                None => children[place].push((slot as i64, token, vec![*candidate])),
            }
        }
    }
    let live = children.iter().filter(|of_prompt| !of_prompt.is_empty()).count();
    if live == 0 {
        return None;
    }
    // Moving a prompt's keys and values costs more than carrying a few idle ones.
    let drop_ended = live * 4 <= children.len() * 3;
    let width = children.iter().map(Vec::len).max().unwrap_or(1);
    let mut next = Next {
        arrangement: Arrangement { prompts: Vec::new(), width, slots: Vec::new() },
        keep: drop_ended.then(Vec::new),
        parents: Vec::new(),
        tokens: Vec::new(),
    };
    for (place, of_prompt) in children.into_iter().enumerate() {
        if let Some(keep) = &mut next.keep {
            if of_prompt.is_empty() {
                continue;
            }
            keep.push(place as i64);
        }
        next.arrangement.prompts.push(now.prompts[place]);
        let empty = width - of_prompt.len();
        for (parent, token, candidates) in of_prompt {
            next.parents.push(parent);
            next.tokens.push(token);
            next.arrangement.slots.push(Some(candidates));
        }
        for _ in 0..empty {
            // An empty slot computes something harmless that nobody reads.
            next.parents.push((place * now.width) as i64);
            next.tokens.push(0);
            next.arrangement.slots.push(None);
        }
    }
    Some(next)
}

/// Runs the text model on each slot's new token: `[slots, hidden]`.
fn feed(
    model: &Qwen25Vl,
    prompts: &[&Prepared],
    next: &Next,
    position: usize,
    cache: &mut Decode,
    device: Device,
) -> Tensor {
    let rows = next.tokens.len() as i64;
    let places: Vec<i64> = (0..next.tokens.len())
        .map(|slot| {
            let prompt = next.arrangement.prompts[slot / next.arrangement.width];
            prompts[prompt].tokens.next_position + position as i64
        })
        .collect();
    let tokens = Tensor::from_slice(&next.tokens).view([rows, 1]).to_device(device);
    let places = Tensor::from_slice(&places).view([1, rows, 1]).expand([3, rows, 1], false);
    let hidden = model.text(&model.embed(&tokens), &places.contiguous().to_device(device), cache);
    hidden.view([rows, -1])
}

/// Stores the normalised state of each (prompt, candidate, slot).
fn collect_features(
    states: &Tensor,
    of: &[(usize, usize, i64)],
    drawn: &mut [Vec<Drawn>],
) -> Result<(), EngineError> {
    if of.is_empty() {
        return Ok(());
    }
    let slots: Vec<i64> = of.iter().map(|(_, _, slot)| *slot).collect();
    let states = states.index_select(0, &Tensor::from_slice(&slots).to_device(states.device()));
    let norm = states.square().sum_dim_intlist(-1, true, Kind::Float).sqrt().clamp_min(1e-12);
    let unit = (states / norm).to_device(Device::Cpu);
    let width = unit.size()[1] as usize;
    let all = Vec::<f32>::try_from(unit.contiguous().view(-1)).map_err(anyhow::Error::from)?;
    for ((prompt, candidate, _), row) in of.iter().zip(all.chunks_exact(width)) {
        drawn[*prompt][*candidate].feature = Some(row.to_vec());
    }
    Ok(())
}
