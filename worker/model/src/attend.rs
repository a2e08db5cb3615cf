//! Attention, as a choice of the caller: the decoder layer makes queries, keys and values and leaves it
//! to an [`Attend`] who sees whom. Rollout, update and evaluation each bring their own.

use tch::Tensor;

/// Who attends to whom in each decoder layer.
pub trait Attend {
    /// Attention of one layer. `q` is `[batch, query_heads, length, head_dim]`, `k` and `v` are
    /// `[batch, kv_heads, length, head_dim]`, `q` and `k` already rotated; the result has the shape of
    /// `q`. `layer` counts from 0.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor;
}

/// Plain causal attention. Rows may be padded on the right: no real token sees what comes after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Causal;

impl Attend for Causal {
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let groups = q.size()[1] / k.size()[1];
        let (k, v) = (repeat_kv(k, groups), repeat_kv(v, groups));
        Tensor::scaled_dot_product_attention::<&Tensor>(q, &k, &v, None, 0.0, true, None, false)
    }
}

/// Repeats each key or value head for its group of query heads:
/// `[batch, kv_heads, length, head_dim]` to `[batch, kv_heads × groups, length, head_dim]`.
pub fn repeat_kv(x: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return x.shallow_clone();
    }
    let (batch, heads, length, dim) = x.size4().expect("keys and values have four dimensions");
    x.unsqueeze(2).expand([batch, heads, groups, length, dim], false).reshape([
        batch,
        heads * groups,
        length,
        dim,
    ])
}

/// Softmax attention of `q` `[batch, query_heads, length, head_dim]` over `k`, `v`
/// `[batch, kv_heads, keys, head_dim]`; the result has the shape of `q`.
///
/// `mask` broadcasts to `[batch, 1, length, keys]`: boolean, true where a query may look, or a number that
/// is added to the score. Query heads that share a key head are folded into rows, so keys and values are
/// never copied per query head.
pub fn scaled_dot(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let (batch, heads, length, dim) = q.size4().expect("queries have four dimensions");
    let kv_heads = k.size()[1];
    let groups = heads / kv_heads;
    if groups == 1 {
        return Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, None, false);
    }
    // Query head h uses key head h / groups, so neighbouring query heads become neighbouring rows.
    let rows = q.reshape([batch, kv_heads, groups * length, dim]);
    let mask =
        mask.map(|m| {
            let mut shape = m.size();
            while shape.len() < 4 {
                shape.insert(0, 1);
            }
            let m = m.reshape(&shape);
            if shape[2] == 1 {
                return m; // broadcasts over the rows as it is
            }
            m.unsqueeze(2)
                .expand([shape[0], shape[1], groups, shape[2], shape[3]], false)
                .reshape([shape[0], shape[1], groups * shape[2], shape[3]])
        });
    Tensor::scaled_dot_product_attention(&rows, k, v, mask.as_ref(), 0.0, false, None, false)
        .reshape([batch, heads, length, dim])
}
