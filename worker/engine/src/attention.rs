//! Two of the ways in which the text model attends: over a whole prompt while keeping its keys and values, and
//! over rows with a block mask. The third, from drawn tokens, is [`crate::kv_cache::KvCache`].

use medevo_model::{Attend, Causal, scaled_dot};
use tch::Tensor;

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

/// Attention under a given mask, the same in all layers.
#[derive(Debug)]
pub struct Masked<'a> {
    /// `[B, 1, L, L]` bool; true is seen.
    pub visible: &'a Tensor,
}

impl Attend for Masked<'_> {
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        scaled_dot(q, k, v, Some(self.visible))
    }
}
