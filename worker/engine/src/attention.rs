//! How the text model attends over a whole prompt while its keys and values are kept. From drawn tokens it
//! attends through [`crate::kv_cache::KvCache`], over training rows through [`crate::branches::Branches`].

use medevo_model::{Attend, Causal};
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
