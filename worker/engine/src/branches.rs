//! Attention of packed rows (see [`crate::layout`]): each row's prefix to itself, and its branches to the prefix
//! and to themselves.
//!
//! Prefixes go through causal attention. Short branches that lie side by side form a block of a few dozen
//! queries under a mask, a long branch a block of its own; a block's keys are the prefix and the block. So the
//! work grows with the answers and not with the square of a row's length, no score is kept for a backward pass,
//! and a prefix is copied once a block, not once a branch.

use medevo_model::{Attend, Causal, scaled_dot};
use tch::{Device, Kind, Tensor};

use crate::layout::Row;

/// Tokens of short branches that share a block. Larger blocks mask more of what they compute, smaller ones read
/// the prefix more often.
const BLOCK: i64 = 64;

/// Who attends to whom in rows that lie one after the other.
#[derive(Debug)]
pub struct Branches {
    rows: Vec<Shape>,
    /// Tokens of each part: a row's prefix, its blocks, the next row's prefix, …
    sizes: Vec<i64>,
}

/// The masks of a row's blocks, `[1, 1, block, prefix + block]` bool each; true is seen.
#[derive(Debug)]
struct Shape {
    masks: Vec<Tensor>,
}

impl Branches {
    /// Attention of `rows`.
    #[must_use]
    pub fn new(rows: &[Row], device: Device) -> Self {
        let mut all = Self { rows: Vec::with_capacity(rows.len()), sizes: Vec::new() };
        for row in rows {
            let (prefix, blocks) = blocks(row);
            all.sizes.push(prefix);
            all.sizes.extend(blocks.iter().map(|block| block.iter().sum::<i64>()));
            let masks = blocks.iter().map(|block| mask(prefix, block, device)).collect();
            all.rows.push(Shape { masks });
        }
        all
    }
}

/// Tokens of a row's prefix, and of the branches of each block.
fn blocks(row: &Row) -> (i64, Vec<Vec<i64>>) {
    let lengths: Vec<i64> =
        row.branches().iter().filter(|length| **length > 0).map(|length| *length as i64).collect();
    let prefix = row.prefix() as i64;
    if let [only] = lengths[..] {
        // What has one continuation is an ordinary sequence.
        return (prefix + only, Vec::new());
    }
    let mut blocks: Vec<Vec<i64>> = Vec::new();
    for length in lengths {
        match blocks.last_mut() {
            Some(block) if block.iter().sum::<i64>() + length <= BLOCK => block.push(length),
            _ => blocks.push(vec![length]),
        }
    }
    (prefix, blocks)
}

/// The prefix, and within one's branch what came before: `[1, 1, block, prefix + block]`.
fn mask(prefix: i64, branches: &[i64], device: Device) -> Tensor {
    let number: Vec<i64> = branches
        .iter()
        .zip(0..)
        .flat_map(|(length, number)| std::iter::repeat_n(number, *length as usize))
        .collect();
    let number = Tensor::from_slice(&number).to_device(device);
    let own = number.unsqueeze(1).eq_tensor(&number.unsqueeze(0)).tril(0);
    let seen = Tensor::ones([number.size()[0], prefix], (Kind::Bool, device));
    Tensor::cat(&[seen, own], 1).unsqueeze(0).unsqueeze(0)
}

/// All rows as one of `[1, heads, tokens, head_dim]`.
impl Attend for &Branches {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let parts = |x: &Tensor| x.split_with_sizes(&self.sizes, 2).into_iter();
        let mut parts = parts(q).zip(parts(k).zip(parts(v)));
        let mut next = || parts.next().expect("one part for each size");
        let mut out = Vec::with_capacity(self.sizes.len());
        for row in &self.rows {
            let (q, (prefix_k, prefix_v)) = next();
            if q.numel() > 0 {
                out.push(Causal.attend(layer, &q, &prefix_k, &prefix_v).transpose(1, 2));
            }
            for mask in &row.masks {
                let (q, (k, v)) = next();
                let k = Tensor::cat(&[&prefix_k, &k], 2);
                let v = Tensor::cat(&[&prefix_v, &v], 2);
                out.push(scaled_dot(&q, &k, &v, Some(mask)).transpose(1, 2));
            }
        }
        // Joined as [1, tokens, heads, head_dim], which is how the layer reads it.
        Tensor::cat(&out, 1).transpose(1, 2)
    }
}
