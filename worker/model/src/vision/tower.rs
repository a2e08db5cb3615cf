//! Patches to image tokens: windowed and full attention, then the merger.
//!
//! The reference moves all patches into window order at the start and back at the end. Attention is the
//! only place where the order matters, so here it is attention that gathers its segments: those of equal
//! length, over all images of the batch, run as one batch.

use tch::{Device, Kind, Tensor};

use super::family::{Mlp, Norm};
use super::layout::{Batches, Layout};
use crate::config::{Family, VisionConfig};
use crate::image::Pixels;
use crate::layer::Linear;
use crate::pass::Pass;
use crate::product;
use crate::rotary::{Angles, inverse_frequencies};
use crate::weights::Tensors;

#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    mlp: Mlp,
}

/// The vision tower.
#[derive(Debug)]
pub(crate) struct VisionTower {
    config: VisionConfig,
    /// The reference's three-dimensional convolution, as the matrix that it is: its stride is its kernel.
    patch_embed: Tensor,
    blocks: Vec<Block>,
    merger_norm: Norm,
    merger_in: Linear,
    merger_out: Linear,
    frequencies: Tensor,
}

/// Which patches attend to each other, in the two kinds of blocks.
struct Spans {
    windows: Segments,
    frames: Segments,
}

/// One kind of attention segments, on the device.
struct Segments {
    /// Order and way back; none where the patches already lie in order.
    moves: Option<(Tensor, Tensor)>,
    sizes: Vec<[i64; 2]>,
    /// `[patches, 1, head_dim]`, in the order of the batches.
    angles: Angles,
}

impl VisionTower {
    pub(crate) fn new(
        tensors: &Tensors,
        config: &VisionConfig,
        family: Family,
        device: Device,
    ) -> Self {
        let block = |i: i64| {
            let at = format!("model.visual.blocks.{i}");
            Block {
                norm1: Norm::new(tensors, &format!("{at}.norm1"), family),
                qkv: Linear::new(tensors, &format!("{at}.attn.qkv"), true),
                proj: Linear::new(tensors, &format!("{at}.attn.proj"), true),
                norm2: Norm::new(tensors, &format!("{at}.norm2"), family),
                mlp: Mlp::new(tensors, &format!("{at}.mlp"), family),
            }
        };
        let head_dim = config.hidden_size / config.num_heads;
        Self {
            config: config.clone(),
            patch_embed: tensors.get("model.visual.patch_embed.proj.weight"),
            blocks: (0..config.depth).map(block).collect(),
            merger_norm: Norm::new(tensors, "model.visual.merger.ln_q", family),
            merger_in: Linear::new(tensors, "model.visual.merger.mlp.0", true),
            merger_out: Linear::new(tensors, "model.visual.merger.mlp.2", true),
            frequencies: inverse_frequencies(head_dim / 2, config.rope_theta, device),
        }
    }

    /// Every linear layer.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        let of_blocks = self.blocks.iter_mut().flat_map(|block| {
            [&mut block.qkv, &mut block.proj].into_iter().chain(block.mlp.linears())
        });
        of_blocks.chain([&mut self.merger_in, &mut self.merger_out])
    }

    /// The tokens of each image, `[merged_tokens, out_hidden_size]`, in one pass. `seen` is given the
    /// state after the patch projection and after each block, `[patches, hidden_size]`.
    pub(crate) fn forward(&self, images: &[&Pixels], mut seen: impl FnMut(&Tensor)) -> Vec<Tensor> {
        if images.is_empty() {
            return Vec::new();
        }
        let spans = self.spans(images);
        let mut hidden = self.embed(&self.patches(images));
        seen(&hidden);
        for index in 0..self.blocks.len() {
            hidden = self.block(index, &hidden, &spans);
            seen(&hidden);
        }
        let merge = self.config.spatial_merge_size;
        let sizes: Vec<i64> = images.iter().map(|p| p.merged_tokens(merge)).collect();
        self.merge(&hidden).split_with_sizes(&sizes, 0)
    }

    /// What [`Self::forward`] computes, as a training pass; the images' tokens lie one after the other.
    pub(crate) fn pass<'a>(&'a self, images: &[&Pixels], recompute: bool) -> Pass<'a> {
        let spans = self.spans(images);
        Pass::forward(&self.patches(images), self.blocks.len(), recompute, move |range, input| {
            let (starts, ends) = (range.start == 0, range.end == self.blocks.len());
            let mut hidden = if starts { self.embed(input) } else { input.shallow_clone() };
            for index in range {
                hidden = self.block(index, &hidden, &spans);
            }
            if ends { self.merge(&hidden) } else { hidden }
        })
    }

    fn spans(&self, images: &[&Pixels]) -> Spans {
        let grids: Vec<[i64; 3]> = images.iter().map(|p| p.grid).collect();
        let merge = self.config.spatial_merge_size;
        let window = self.config.window_size / merge / self.config.patch_size;
        let layout = Layout::new(&grids, merge, window);
        Spans {
            windows: self.segments(&layout, &layout.windows),
            frames: self.segments(&layout, &layout.frames),
        }
    }

    /// `[patches of all images, numbers of a patch]`.
    fn patches(&self, images: &[&Pixels]) -> Tensor {
        let patches: Vec<&Tensor> = images.iter().map(|p| &p.patches).collect();
        let (device, kind) = (self.patch_embed.device(), self.patch_embed.kind());
        Tensor::cat(&patches, 0).to_device(device).to_kind(kind)
    }

    fn embed(&self, patches: &Tensor) -> Tensor {
        let weight = self.patch_embed.view([self.config.hidden_size, self.config.patch_dim()]);
        product::linear(patches, &weight, None)
    }

    fn block(&self, index: usize, hidden: &Tensor, spans: &Spans) -> Tensor {
        let block = &self.blocks[index];
        let whole = self.config.fullatt_block_indexes.contains(&(index as i64));
        let segments = if whole { &spans.frames } else { &spans.windows };
        let attended = self.attention(block, &block.norm1.forward(hidden), segments);
        // Not `+=`: that would change a tensor which the backward pass reads.
        let middle = hidden + attended;
        &middle + block.mlp.forward(&block.norm2.forward(&middle))
    }

    /// `[patches, hidden_size]` to `[tokens, out_hidden_size]`.
    fn merge(&self, hidden: &Tensor) -> Tensor {
        // The four patches of a token lie side by side: [patches, width] -> [tokens, 4 × width].
        let joined = self
            .merger_norm
            .forward(hidden)
            .view([-1, self.config.merge_unit() * self.config.hidden_size]);
        self.merger_out.forward(&self.merger_in.forward(&joined).gelu("none"))
    }

    fn segments(&self, layout: &Layout, segments: &[Vec<i64>]) -> Segments {
        let device = self.patch_embed.device();
        let batches = Batches::new(segments);
        let places: Vec<i64> = layout.places.iter().flatten().copied().collect();
        // [patches, 2, 1] × [head_dim / 4] -> [patches, head_dim / 2], rows first, columns second.
        let places = Tensor::from_slice(&places).to_device(device).view([-1, 2, 1]);
        let radians = (places.to_kind(Kind::Float) * &self.frequencies).flatten(1, 2);
        // The reference rotates in f32 here, whatever the weights' type.
        let mut angles = Angles::new(&radians, Kind::Float).unsqueeze(1);
        let moves = (!batches.is_identity()).then(|| {
            let index = |v: &[i64]| Tensor::from_slice(v).to_device(device);
            (index(&batches.order), index(&batches.back))
        });
        if let Some((order, _)) = &moves {
            angles = angles.rows(order);
        }
        Segments { moves, sizes: batches.sizes, angles }
    }

    /// `x` `[patches, hidden_size]` to the same shape.
    fn attention(&self, block: &Block, x: &Tensor, segments: &Segments) -> Tensor {
        let (heads, kind) = (self.config.num_heads, x.kind());
        let x = match &segments.moves {
            Some((order, _)) => x.index_select(0, order),
            None => x.shallow_clone(),
        };
        // [patches, 3 × width] -> three of [patches, heads, head_dim]
        let qkv = block.qkv.forward(&x).view([x.size()[0], 3, heads, -1]);
        let rotated =
            |i| segments.angles.rotate(&qkv.select(1, i).to_kind(Kind::Float)).to_kind(kind);
        let (q, k, v) = (rotated(0), rotated(1), qkv.select(1, 2));
        let mut start = 0;
        let mut parts = Vec::with_capacity(segments.sizes.len());
        for &[count, length] in &segments.sizes {
            // [count × length, heads, d] -> [count, heads, length, d]
            let batch = |t: &Tensor| {
                t.narrow(0, start, count * length).unflatten(0, [count, length]).transpose(1, 2)
            };
            let attended = Tensor::scaled_dot_product_attention::<&Tensor>(
                &batch(&q),
                &batch(&k),
                &batch(&v),
                None,
                0.0,
                false,
                None,
                false,
            );
            parts.push(attended.transpose(1, 2).reshape([count * length, -1]));
            start += count * length;
        }
        let mut out = block.proj.forward(&Tensor::cat(&parts, 0));
        if let Some((_, back)) = &segments.moves {
            out = out.index_select(0, back);
        }
        out
    }
}
