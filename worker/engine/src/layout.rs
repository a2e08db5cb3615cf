//! One row of a training batch: a prefix that is processed once, and the branches that continue it.
//!
//! A scored group is the row `[prompt | y_1 | … | y_K]`; supervised examples about one image are
//! `[image and what precedes it | rest of question 1, answer 1 | rest of question 2, answer 2 | …]`.
//! Each branch sees the prefix and itself ([`crate::branches`]), and its position ids are those it would have
//! alone, so each answer's log-probabilities, and the gradients, equal those of separate rows to rounding.
//! An answer's last token is left out of the row: nothing is predicted from it.

use medevo_model::PromptTokens;
use tch::{Device, Tensor};

use crate::branches::Branches;

/// An answer's place in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position in the row whose hidden state predicts each token.
    pub sources: Vec<i64>,
    /// The tokens to predict.
    pub targets: Vec<i64>,
}

/// One row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    ids: Vec<i64>,
    positions: [Vec<i64>; 3],
    prefix: usize,
    branches: Vec<usize>,
    /// The answers, in the order in which they were added.
    pub answers: Vec<Span>,
}

impl Row {
    /// A row that starts with the first `prefix` tokens of `prompt`.
    #[must_use]
    pub fn new(prompt: &PromptTokens, prefix: usize) -> Self {
        let mut row = Self { prefix, ..Self::default() };
        row.extend_prompt(prompt, 0..prefix);
        row
    }

    fn extend_prompt(&mut self, prompt: &PromptTokens, part: std::ops::Range<usize>) {
        self.ids.extend(prompt.ids[part.clone()].iter().map(|id| i64::from(*id)));
        for axis in 0..3 {
            self.positions[axis].extend_from_slice(&prompt.positions[axis][part.clone()]);
        }
    }

    /// Adds the rest of `prompt` after `prefix` tokens, and an answer to it. `answer` is not empty.
    pub fn branch(&mut self, prompt: &PromptTokens, prefix: usize, answer: &[u32]) {
        let before = self.len();
        let rest = prefix..prompt.ids.len();
        let mut source = if rest.is_empty() { prefix } else { self.len() + rest.len() } as i64 - 1;
        self.extend_prompt(prompt, rest);
        let mut span = Span { sources: Vec::with_capacity(answer.len()), targets: Vec::new() };
        for (place, id) in answer.iter().enumerate() {
            span.sources.push(source);
            span.targets.push(i64::from(*id));
            if place + 1 < answer.len() {
                source = self.len() as i64;
                self.ids.push(i64::from(*id));
                for axis in &mut self.positions {
                    axis.push(prompt.next_position + place as i64);
                }
            }
        }
        self.answers.push(span);
        self.branches.push(self.len() - before);
    }

    /// Tokens in the row.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of the prefix.
    #[must_use]
    pub fn prefix(&self) -> usize {
        self.prefix
    }

    /// Tokens of each branch; a one-token answer right after the prefix has none.
    #[must_use]
    pub fn branches(&self) -> &[usize] {
        &self.branches
    }

    /// Whether the row has no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Rows laid one after the other: T tokens, no padding.
#[derive(Debug)]
pub struct Batch {
    /// Token ids `[1, T]`.
    pub ids: Tensor,
    /// mRoPE position ids `[3, 1, T]`.
    pub positions: Tensor,
    /// Who attends to whom.
    pub branches: Branches,
    /// Places in `[T]` whose hidden states predict something, each once, ascending.
    pub predicting: Tensor,
    /// For each answer token: its row in `predicting`.
    pub source: Vec<i64>,
    /// For each answer token: its id.
    pub target: Vec<i64>,
}

impl Batch {
    /// Joins `rows`. Answer tokens are numbered row by row, answer by answer.
    #[must_use]
    pub fn new(rows: &[Row], device: Device) -> Self {
        let mut ids = Vec::new();
        let mut positions = [Vec::new(), Vec::new(), Vec::new()];
        let mut places = Vec::new();
        for row in rows {
            let base = ids.len() as i64;
            ids.extend_from_slice(&row.ids);
            for (all, own) in positions.iter_mut().zip(&row.positions) {
                all.extend_from_slice(own);
            }
            for span in &row.answers {
                places.extend(span.sources.iter().map(|source| base + source));
            }
        }
        let mut predicting = places.clone();
        predicting.sort_unstable();
        predicting.dedup();
        let source: Vec<i64> =
            places.iter().map(|place| predicting.partition_point(|p| p < place) as i64).collect();
        let target: Vec<i64> = rows
            .iter()
            .flat_map(|row| row.answers.iter().flat_map(|span| span.targets.iter().copied()))
            .collect();
        let tokens = ids.len() as i64;
        Self {
            ids: Tensor::from_slice(&ids).view([1, tokens]).to_device(device),
            positions: Tensor::from_slice(&positions.concat())
                .view([3, 1, tokens])
                .to_device(device),
            branches: Branches::new(rows, device),
            predicting: Tensor::from_slice(&predicting).to_device(device),
            source,
            target,
        }
    }
}

fn longest(rows: &[Row]) -> usize {
    rows.iter().map(Row::len).max().unwrap_or(0)
}

/// One list of each row, padded on the right: `[B, L]`.
fn padded(rows: &[Row], pick: &dyn Fn(&Row) -> &Vec<i64>, fill: i64) -> Tensor {
    let length = longest(rows);
    let mut all = Vec::with_capacity(rows.len() * length);
    for (number, row) in rows.iter().enumerate() {
        all.extend_from_slice(pick(row));
        all.resize((number + 1) * length, fill);
    }
    Tensor::from_slice(&all).view([rows.len() as i64, length as i64])
}

/// Token ids `[B, L]` and position ids `[3, B, L]` of rows padded on the right.
pub fn stack(rows: &[Row], device: Device) -> (Tensor, Tensor) {
    let ids = padded(rows, &|row| &row.ids, 0).to_device(device);
    let axes: Vec<Tensor> =
        (0..3).map(|axis| padded(rows, &|row| &row.positions[axis], 0)).collect();
    (ids, Tensor::stack(&axes, 0).to_device(device))
}
