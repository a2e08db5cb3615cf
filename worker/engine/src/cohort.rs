//! Prompts that were prefilled together, and the partial answers to them.
//!
//! Candidates that have drawn the same tokens so far are one *partial answer*: it is decoded once, as one row,
//! and its candidates part when their draws do, so N candidates cost as much as the distinct answers among
//! them. Rows that have ended are filled with others, and prompts that have ended leave.

use medevo_model::{Attend, Qwen25Vl};
use tch::{Device, Kind, Tensor};

use crate::{
    attention::Prefill,
    decode::{Drawing, Drawn},
    draw::Step,
    error::EngineError,
    kv_cache::KvCache,
    layout::{Row, stack},
    prompts::Prepared,
    score::embeddings,
};

/// Candidates that share all tokens drawn so far.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    /// Their prompt's place in the cohort.
    pub place: usize,
    pub candidates: Vec<usize>,
}

/// One cohort. All its partial answers have the same number of tokens.
pub(crate) struct Cohort {
    /// Number, among all prompts of the unit, of the prompt at each place.
    pub prompts: Vec<usize>,
    /// The partial answers, row by row.
    pub rows: Vec<Partial>,
    /// Tokens drawn so far.
    pub position: usize,
    /// States that predict the next token, `[rows, hidden]`.
    pub hidden: Tensor,
    /// Position id of each place's first answer token.
    first_positions: Vec<i64>,
    cache: KvCache,
    /// Rows that the cache has room for: enough if all candidates part.
    capacity: usize,
    /// Sum of the last hidden states over each partial answer's tokens, `[rows, hidden]` f32; none where no
    /// features are wanted.
    sums: Option<Tensor>,
}

/// A partial answer with one more token.
#[derive(Clone, Debug)]
struct Child {
    parent: usize,
    token: i64,
    partial: Partial,
}

impl Cohort {
    /// Prefills `numbers` of the unit's prompts. `features` are their images' features in order.
    pub fn new(
        model: &Qwen25Vl,
        unit: &[Prepared],
        numbers: Vec<usize>,
        features: &[Tensor],
        drawing: &Drawing<'_>,
    ) -> Result<Self, EngineError> {
        let prompts: Vec<&Prepared> = numbers.iter().map(|number| &unit[*number]).collect();
        let rows: Vec<Row> =
            prompts.iter().map(|prompt| Row::new(&prompt.tokens, prompt.length())).collect();
        let (ids, positions) = stack(&rows, model.parameters()[0].1.device());
        let mut keep = Prefill::default();
        let embeds = embeddings(model, &ids, features)?;
        let hidden = model.text(&embeds, &positions, &mut keep);
        let (padded, width) = (hidden.size()[1], hidden.size()[2]);
        let lengths: Vec<i64> = prompts.iter().map(|prompt| prompt.length() as i64).collect();
        let last: Vec<i64> = (0..padded * lengths.len() as i64)
            .step_by(padded as usize)
            .zip(&lengths)
            .map(|(start, length)| start + length - 1)
            .collect();
        let last = Tensor::from_slice(&last).to_device(hidden.device());
        let hidden = hidden.view([-1, width]).index_select(0, &last);
        let n = drawing.sampling.n;
        let longest = drawing.sampling.max_new_tokens as i64;
        let candidates: Vec<usize> = (0..n).collect();
        Ok(Self {
            rows: (0..numbers.len())
                .map(|place| Partial { place, candidates: candidates.clone() })
                .collect(),
            prompts: numbers,
            position: 0,
            first_positions: prompts.iter().map(|prompt| prompt.tokens.next_position).collect(),
            capacity: lengths.len() * n,
            cache: KvCache::new(keep.layers, &lengths, (lengths.len() * n) as i64, longest),
            sums: drawing.features.then(|| hidden.to_kind(Kind::Float).zeros_like()),
            hidden,
        })
    }

    /// Tokens of keys and values that the cohort holds room for.
    pub fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    /// (prompt, candidate, row) of all that goes on.
    fn candidates(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.rows.iter().enumerate().flat_map(|(row, partial)| {
            let prompt = self.prompts[partial.place];
            partial.candidates.iter().map(move |candidate| (prompt, *candidate, row))
        })
    }

    /// Books one step's draws, of which this cohort's start at row `from`, and arranges what goes on. The
    /// token that each row adds; none when all has ended.
    pub fn branch(
        &mut self,
        step: &Step,
        from: usize,
        drawn: &mut [Vec<Drawn>],
        drawing: &Drawing<'_>,
    ) -> Result<Vec<i64>, EngineError> {
        let mut ended = Vec::new();
        let mut children: Vec<Child> = Vec::new();
        for (row, partial) in self.rows.iter().enumerate() {
            let prompt = self.prompts[partial.place];
            let first_child = children.len();
            for (column, candidate) in partial.candidates.iter().enumerate() {
                let token = step.ids[(from + row) * step.columns + column];
                let answer = &mut drawn[prompt][*candidate];
                answer.ids.push(token as u32);
                answer.logprobs.push(step.logprobs[(from + row) * step.columns + column]);
                answer.entropy += f64::from(step.entropy[from + row]);
                if drawing.stop_ids.contains(&(token as u32)) {
                    answer.finished = true;
                    ended.push((prompt, *candidate, row));
                    continue;
                }
                let known = children[first_child..].iter_mut().find(|child| child.token == token);
                match known {
                    Some(child) => child.partial.candidates.push(*candidate),
                    None => {
                        let partial =
                            Partial { place: partial.place, candidates: vec![*candidate] };
                        children.push(Child { parent: row, token, partial });
                    }
                }
            }
        }
        if let Some(sums) = &self.sums {
            let states = match self.position {
                0 => self.hidden.to_kind(Kind::Float),
                tokens => sums / tokens as f64,
            };
            collect_features(&states, &ended, drawn)?;
        }
        let (children, moves) = settle(children);
        self.rows = children.iter().map(|child| child.partial.clone()).collect();
        let last = self.position + 1 == drawing.sampling.max_new_tokens;
        if children.is_empty() || (last && !drawing.features) {
            self.rows.clear();
            return Ok(Vec::new());
        }
        let unchanged =
            self.position > 0 && moves.is_empty() && children.len() as i64 == self.cache.rows();
        if !unchanged {
            self.cache.rearrange(&moves, &self.place_of());
            self.give_back();
        }
        if let Some(sums) = &self.sums {
            let parents: Vec<i64> = children.iter().map(|child| child.parent as i64).collect();
            let parents = Tensor::from_slice(&parents).to_device(sums.device());
            self.sums = Some(sums.index_select(0, &parents));
        }
        Ok(children.iter().map(|child| child.token).collect())
    }

    fn place_of(&self) -> Vec<usize> {
        self.rows.iter().map(|partial| partial.place).collect()
    }

    /// Gives back the room of candidates and prompts that have ended, once they are a quarter: moving the
    /// others costs more than carrying a few idle ones.
    fn give_back(&mut self) {
        let few = |left: usize, all: usize| left * 4 <= all * 3;
        let candidates = self.rows.iter().map(|partial| partial.candidates.len()).sum();
        if few(candidates, self.capacity) {
            self.capacity = candidates;
            self.cache.keep_rows(candidates as i64);
        }
        let mut live = vec![false; self.prompts.len()];
        for partial in &self.rows {
            live[partial.place] = true;
        }
        let keep: Vec<usize> = (0..live.len()).filter(|place| live[*place]).collect();
        if few(keep.len(), live.len()) {
            let mut moved = vec![0; live.len()];
            for (to, from) in keep.iter().enumerate() {
                moved[*from] = to;
            }
            for partial in &mut self.rows {
                partial.place = moved[partial.place];
            }
            self.prompts = keep.iter().map(|place| self.prompts[*place]).collect();
            self.first_positions = keep.iter().map(|place| self.first_positions[*place]).collect();
            let keep: Vec<i64> = keep.into_iter().map(|place| place as i64).collect();
            self.cache.keep_places(&keep, &self.place_of());
        }
    }

    /// Position ids of the tokens that [`Self::branch`] returned.
    pub fn positions(&self) -> impl Iterator<Item = i64> + '_ {
        let ahead = self.position as i64;
        self.rows.iter().map(move |partial| self.first_positions[partial.place] + ahead)
    }

    /// Takes the states of the tokens just added, `[rows, hidden]`. After the longest answer's last token
    /// nothing goes on.
    pub fn advance(
        &mut self,
        hidden: Tensor,
        drawn: &mut [Vec<Drawn>],
        longest: usize,
    ) -> Result<(), EngineError> {
        self.position += 1;
        self.cache.advance();
        if let Some(sums) = self.sums.take() {
            let sums = sums + hidden.to_kind(Kind::Float);
            if self.position == longest {
                let cut: Vec<(usize, usize, usize)> = self.candidates().collect();
                collect_features(&(&sums / longest as f64), &cut, drawn)?;
                self.rows.clear();
            }
            self.sums = Some(sums);
        }
        self.hidden = hidden;
        Ok(())
    }
}

/// Puts partial answers into rows so that few change theirs: the first child stays in its parent's row, the
/// others, and those whose row lies beyond the last, fill the gaps. The children by row, and the copies
/// `(from, to)` that this takes.
fn settle(children: Vec<Child>) -> (Vec<Child>, Vec<(i64, i64)>) {
    let count = children.len();
    let mut rows: Vec<Option<Child>> = vec![None; count];
    let mut homeless = Vec::new();
    for child in children {
        match rows.get_mut(child.parent) {
            Some(row @ None) => *row = Some(child),
            _ => homeless.push(child),
        }
    }
    let mut moves = Vec::with_capacity(homeless.len());
    let mut homeless = homeless.into_iter();
    let settled = rows
        .into_iter()
        .enumerate()
        .map(|(row, child)| {
            child.unwrap_or_else(|| {
                let child = homeless.next().expect("there are as many rows as children");
                moves.push((child.parent as i64, row as i64));
                child
            })
        })
        .collect();
    (settled, moves)
}

/// Stores the normalised state of each (prompt, candidate, row).
fn collect_features(
    states: &Tensor,
    of: &[(usize, usize, usize)],
    drawn: &mut [Vec<Drawn>],
) -> Result<(), EngineError> {
    if of.is_empty() {
        return Ok(());
    }
    let rows: Vec<i64> = of.iter().map(|(_, _, row)| *row as i64).collect();
    let states = states.index_select(0, &Tensor::from_slice(&rows).to_device(states.device()));
    let norm = states.square().sum_dim_intlist(-1, true, Kind::Float).sqrt().clamp_min(1e-12);
    let unit = (states / norm).to_device(Device::Cpu);
    let width = unit.size()[1] as usize;
    let all = Vec::<f32>::try_from(unit.contiguous().view(-1)).map_err(anyhow::Error::from)?;
    for ((prompt, candidate, _), row) in of.iter().zip(all.chunks_exact(width)) {
        drawn[*prompt][*candidate].feature = Some(row.to_vec());
    }
    Ok(())
}

/// All cohorts as one batch: their rows one after the other, each attending in its own cohort's cache.
pub(crate) struct Together<'a>(pub &'a mut [Cohort]);

impl Attend for Together<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        if let [only] = &mut *self.0 {
            return only.cache.attend(layer, q, k, v);
        }
        let mut from = 0;
        let parts: Vec<Tensor> = self
            .0
            .iter_mut()
            .map(|cohort| {
                let rows = cohort.cache.rows();
                let of = |t: &Tensor| t.narrow(0, from, rows);
                let part = cohort.cache.attend(layer, &of(q), &of(k), &of(v));
                from += rows;
                part
            })
            .collect();
        Tensor::cat(&parts, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Child, Partial, settle};

    proptest! {
        /// A partial answer in the wrong row would go on from another one's keys and values.
        #[test]
        fn every_child_gets_one_row_that_holds_its_parent(
            counts in prop::collection::vec(0usize..4, 1..12),
        ) {
            let children: Vec<Child> = counts
                .iter()
                .enumerate()
                .flat_map(|(parent, count)| (0..*count).map(move |token| (parent, token)))
                .map(|(parent, token)| Child {
                    parent,
                    token: token as i64,
                    partial: Partial { place: 0, candidates: vec![] },
                })
                .collect();
            let wanted: Vec<(usize, i64)> = children.iter().map(|c| (c.parent, c.token)).collect();
            let (settled, moves) = settle(children);
            // What the cache does with the moves.
            let before: Vec<usize> = (0..counts.len().max(settled.len())).collect();
            let mut rows = before.clone();
            for (from, to) in &moves {
                rows[*to as usize] = before[*from as usize];
            }
            for (row, child) in settled.iter().enumerate() {
                prop_assert_eq!(rows[row], child.parent);
            }
            let mut found: Vec<(usize, i64)> = settled.iter().map(|c| (c.parent, c.token)).collect();
            found.sort_unstable();
            prop_assert_eq!(found, wanted);
            let stay = counts.iter().take(settled.len()).filter(|count| **count > 0).count();
            prop_assert_eq!(moves.len(), settled.len() - stay);
        }
    }
}
