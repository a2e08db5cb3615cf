//! How the text model attends in a rollout: over a whole prompt while keeping its keys and values, and from
//! drawn tokens to a prompt's one copy plus their own few tokens.

use medevo_model::{Attend, Causal};
use tch::{Kind, Tensor};

/// Causal attention over prompts that keeps each layer's keys and values. Prompts are padded on the right, so
/// no token that counts sees padding.
#[derive(Debug, Default)]
pub struct Prefill {
    /// By layer: keys and values, each `[prompts, kv heads, length, head dim]`.
    pub layers: Vec<(Tensor, Tensor)>,
}

impl Attend for Prefill {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        debug_assert_eq!(layer, self.layers.len(), "layers come in order");
        self.layers.push((k.contiguous(), v.contiguous()));
        Causal.attend(layer, q, k, v)
    }
}

/// Keys and values of partial answers, `width` slots a prompt, in buffers that never grow.
/// Slot s of prompt p is row `p · width + s`.
#[derive(Debug)]
pub struct Decode {
    prefix: Vec<(Tensor, Tensor)>,
    /// `[prompts, 1, 1, length]` f32: 0 where the prompt has a token, minus infinity on its padding.
    prefix_bias: Tensor,
    /// By layer: `[capacity, kv heads, longest answer, head dim]`.
    own: Vec<(Tensor, Tensor)>,
    prompts: i64,
    width: i64,
    /// Answer tokens already in the buffers.
    filled: i64,
}

impl Decode {
    /// Takes over what [`Prefill`] kept. `lengths` are the prompts' true lengths; at most `width` slots a
    /// prompt and `longest` tokens an answer will ever be asked for.
    #[must_use]
    pub fn new(prefix: Vec<(Tensor, Tensor)>, lengths: &[i64], width: i64, longest: i64) -> Self {
        let prompts = lengths.len() as i64;
        let (device, padded) =
            prefix.first().map_or((tch::Device::Cpu, 0), |(k, _)| (k.device(), k.size()[2]));
        let place = Tensor::arange(padded, (Kind::Int64, device)).unsqueeze(0);
        let lengths = Tensor::from_slice(lengths).to_device(device).unsqueeze(1);
        let prefix_bias = Tensor::zeros([prompts, padded], (Kind::Float, device))
            .masked_fill(&place.ge_tensor(&lengths), f64::NEG_INFINITY)
            .view([prompts, 1, 1, padded]);
        let own = prefix
            .iter()
            .map(|(k, v)| {
                let size = k.size();
                let shape = [prompts * width, size[1], longest, size[3]];
                let empty = |like: &Tensor| Tensor::zeros(shape, (like.kind(), device));
                (empty(k), empty(v))
            })
            .collect();
        Self { prefix, prefix_bias, own, prompts, width: 1, filled: 0 }
    }

    /// Puts other partial answers into the slots: row r of the new arrangement continues row `parents[r]` of
    /// the old one. `keep` names the prompts that go on, when some have ended.
    pub fn rearrange(&mut self, keep: Option<&[i64]>, parents: &[i64], width: i64) {
        let device = self.prefix_bias.device();
        if let Some(keep) = keep {
            self.prompts = keep.len() as i64;
            let keep = Tensor::from_slice(keep).to_device(device);
            self.prefix_bias = self.prefix_bias.index_select(0, &keep);
            for (k, v) in &mut self.prefix {
                *k = k.index_select(0, &keep);
                *v = v.index_select(0, &keep);
            }
        }
        self.width = width;
        let rows = parents.len() as i64;
        debug_assert_eq!(rows, self.prompts * width, "a parent for each slot");
        if self.filled > 0 {
            let parents = Tensor::from_slice(parents).to_device(device);
            for (k, v) in &mut self.own {
                for buffer in [k, v] {
                    let old = buffer.narrow(2, 0, self.filled).index_select(0, &parents);
                    buffer.narrow(0, 0, rows).narrow(2, 0, self.filled).copy_(&old);
                }
            }
        }
    }

    /// One more token is in the buffers of every layer.
    pub fn advance(&mut self) {
        self.filled += 1;
    }
}

impl Attend for Decode {
    /// q `[prompts · width, heads, 1, head dim]`, k and v `[prompts · width, kv heads, 1, head dim]`.
    /// One softmax over the scores against the prompt's keys and the answer's own: exact.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let size = q.size();
        let (rows, heads, dim) = (size[0], size[1], size[3]);
        let kv_heads = k.size()[1];
        let shared = heads / kv_heads;
        let (prompts, width, seen) = (self.prompts, self.width, self.filled + 1);
        let (own_k, own_v) = &self.own[layer];
        own_k.narrow(0, 0, rows).narrow(2, self.filled, 1).copy_(k);
        own_v.narrow(0, 0, rows).narrow(2, self.filled, 1).copy_(v);
        let own_k = own_k.narrow(0, 0, rows).narrow(2, 0, seen); // [rows, kv, seen, d]
        let own_v = own_v.narrow(0, 0, rows).narrow(2, 0, seen);
        let (prefix_k, prefix_v) = &self.prefix[layer]; // [prompts, kv, length, d]
        let length = prefix_k.size()[2];

        let q = q.reshape([rows, kv_heads, shared, dim]) * (dim as f64).powf(-0.5);
        let own_scores = q.matmul(&own_k.transpose(2, 3)); // [rows, kv, shared, seen]
        let by_prompt = q
            .view([prompts, width, kv_heads, shared, dim])
            .permute([0, 2, 1, 3, 4])
            .reshape([prompts, kv_heads, width * shared, dim]);
        let prefix_scores =
            by_prompt.matmul(&prefix_k.transpose(2, 3)).to_kind(Kind::Float) + &self.prefix_bias; // [prompts, kv, width · shared, length]
        let prefix_scores = prefix_scores
            .view([prompts, kv_heads, width, shared, length])
            .permute([0, 2, 1, 3, 4])
            .reshape([rows, kv_heads, shared, length]);
        let weights = Tensor::cat(&[prefix_scores, own_scores.to_kind(Kind::Float)], -1)
            .softmax(-1, Kind::Float)
            .to_kind(v.kind()); // [rows, kv, shared, length + seen]
        let prefix_weights = weights
            .narrow(-1, 0, length)
            .reshape([prompts, width, kv_heads, shared, length])
            .permute([0, 2, 1, 3, 4])
            .reshape([prompts, kv_heads, width * shared, length]);
        let from_prefix = prefix_weights
            .matmul(prefix_v)
            .view([prompts, kv_heads, width, shared, dim])
            .permute([0, 2, 1, 3, 4])
            .reshape([rows, kv_heads, shared, dim]);
        let from_own = weights.narrow(-1, length, seen).matmul(&own_v);
        (from_prefix + from_own).reshape([rows, heads, 1, dim])
    }
}
