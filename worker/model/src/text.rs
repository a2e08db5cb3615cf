//! The decoder: multimodal rotary positions, grouped-query attention, SwiGLU.

use tch::{Device, Kind, Tensor};

use crate::attend::Attend;
use crate::config::TextConfig;
use crate::layer::{Linear, RmsNorm, SwiGlu};
use crate::pass::Pass;
use crate::rotary::{Angles, inverse_frequencies};
use crate::weights::Tensors;

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_attention_norm: RmsNorm,
    mlp: SwiGlu,
}

/// The decoder without its embeddings.
#[derive(Debug)]
pub(crate) struct TextModel {
    layers: Vec<Layer>,
    norm: RmsNorm,
    head_dim: i64,
    frequencies: Tensor,
    /// Which of time, height and width turns each frequency: `[head_dim / 2]` i64.
    axis: Tensor,
}

impl TextModel {
    pub(crate) fn new(tensors: &Tensors, config: &TextConfig, device: Device) -> Self {
        let layer = |i: i64| {
            let at = format!("model.language_model.layers.{i}");
            let attention = |part: &str, bias| {
                Linear::new(tensors, &format!("{at}.self_attn.{part}_proj"), bias)
            };
            Layer {
                input_norm: RmsNorm::new(
                    tensors,
                    &format!("{at}.input_layernorm"),
                    config.rms_norm_eps,
                ),
                q: attention("q", true),
                k: attention("k", true),
                v: attention("v", true),
                o: attention("o", false),
                post_attention_norm: RmsNorm::new(
                    tensors,
                    &format!("{at}.post_attention_layernorm"),
                    config.rms_norm_eps,
                ),
                mlp: SwiGlu::new(tensors, &format!("{at}.mlp"), false),
            }
        };
        let axis: Vec<i64> = config
            .mrope_section
            .iter()
            .enumerate()
            .flat_map(|(axis, n)| std::iter::repeat_n(axis as i64, *n as usize))
            .collect();
        Self {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: RmsNorm::new(tensors, "model.language_model.norm", config.rms_norm_eps),
            head_dim: config.head_dim,
            frequencies: inverse_frequencies(config.head_dim, config.rope_theta, device),
            axis: Tensor::from_slice(&axis).to_device(device),
        }
    }

    /// Every linear layer.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|layer| {
            let attention = [&mut layer.q, &mut layer.k, &mut layer.v, &mut layer.o];
            attention.into_iter().chain(layer.mlp.linears())
        })
    }

    /// `embeds` `[B, L, H]`, `positions` `[3, B, L]` to the last hidden state after the final norm,
    /// `[B, L, H]`. `seen` is given the state after the embedding and after each layer.
    pub(crate) fn forward(
        &self,
        embeds: &Tensor,
        positions: &Tensor,
        attend: &mut dyn Attend,
        mut seen: impl FnMut(&Tensor),
    ) -> Tensor {
        let angles = self.angles(positions, embeds.kind());
        let mut hidden = embeds.shallow_clone();
        seen(&hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = self.layer(index, layer, &hidden, &angles, attend);
            seen(&hidden);
        }
        self.norm.forward(&hidden)
    }

    /// What [`Self::forward`] computes, as a training pass.
    pub(crate) fn pass<'a>(
        &'a self,
        embeds: &Tensor,
        positions: &Tensor,
        attend: &'a mut dyn Attend,
        recompute: bool,
    ) -> Pass<'a> {
        let angles = self.angles(positions, embeds.kind());
        Pass::forward(embeds, self.layers.len(), recompute, move |range, input| {
            let mut hidden = input.shallow_clone();
            let ends = range.end == self.layers.len();
            for index in range {
                hidden = self.layer(index, &self.layers[index], &hidden, &angles, attend);
            }
            if ends { self.norm.forward(&hidden) } else { hidden }
        })
    }

    /// The rotary angles of `[3, B, L]` positions, `[B, 1, L, head_dim]`.
    fn angles(&self, positions: &Tensor, kind: Kind) -> Angles {
        // [3, B, L] -> [head_dim / 2, B, L] -> [B, L, head_dim / 2]
        let by_frequency = positions.index_select(0, &self.axis).permute([1, 2, 0]);
        let radians = by_frequency.to_kind(Kind::Float) * &self.frequencies;
        Angles::new(&radians, kind).unsqueeze(1)
    }

    fn layer(
        &self,
        index: usize,
        layer: &Layer,
        hidden: &Tensor,
        angles: &Angles,
        attend: &mut dyn Attend,
    ) -> Tensor {
        let (batch, length, _) = hidden.size3().expect("hidden states have three dimensions");
        // [B, L, heads × d] -> [B, heads, L, d]
        let heads = |x: Tensor| x.view([batch, length, -1, self.head_dim]).transpose(1, 2);
        let x = layer.input_norm.forward(hidden);
        let q = angles.rotate(&heads(layer.q.forward(&x)));
        let k = angles.rotate(&heads(layer.k.forward(&x)));
        let v = heads(layer.v.forward(&x));
        let attended =
            attend.attend(index, &q, &k, &v).transpose(1, 2).reshape([batch, length, -1]);
        let hidden = hidden + layer.o.forward(&attended);
        let x = layer.post_attention_norm.forward(&hidden);
        hidden + layer.mlp.forward(&x)
    }
}
