//! What a forward pass keeps for the backward pass, and what it needs for a moment.
//!
//! Counted from the tensors that automatic differentiation saves in the engine's layers. With H the hidden
//! width, Q and K the widths of queries and keys, I the inner width, for each token and decoder layer:
//! - two norms: input and normed, 2 H each; in bf16, where the norm is made of single steps, 3 H, and the input is
//!   saved in f32 besides;
//! - queries: before the rotation, its half turned, folded to rows, attended, joined: 5 Q; keys: before, half
//!   turned, after: 3 K; values: K;
//! - SwiGLU: gate, its SiLU, up, their product: 4 I;
//! - on the CPU in f32 each product runs in oneDNN's layout, which keeps its input and its output once more: 7 H,
//!   2 Q, 2 K, 3 I.
//!
//! Attention keeps a mask of a block of answers against its prompt, which is not counted: a tenth of all at 7B with
//! prompts of 2000 tokens.
//!
//! A block of the vision tower (width D, inner width I) keeps a patch's two norms 6 D (4 D in f32), queries, keys and
//! values 3 D, the turned ones and their halves 4 D in f32 and 2 D beside them in bf16, attended and joined 2 D, and
//! 4 I; on the CPU in f32 another 9 D and 3 I.

use medevo_types::settings::Dtype;

use crate::{
    job::{Job, Place},
    shape::Shape,
};

/// Bytes that one token keeps in one decoder layer.
#[must_use]
pub fn text_layer(shape: &Shape, job: &Job) -> u64 {
    let (h, q, k, i) = (shape.hidden, shape.queries, shape.keys, shape.inner);
    let wide = if job.dtype == Dtype::Bf16 { 2 * 4 * h } else { 0 };
    let norms = if job.dtype == Dtype::Bf16 { 6 * h } else { 4 * h };
    let copies = if copies(job) { 7 * h + 2 * q + 2 * k + 3 * i } else { 0 };
    (norms + 5 * q + 4 * k + 4 * i + copies) * job.width()
        + wide
        + adapted(job, 20 * h + 4 * q + 4 * i)
}

/// Bytes of the f32 copies that adapters keep of their layers' inputs, where those are bf16; at most `all`.
fn adapted(job: &Job, all: u64) -> u64 {
    if job.lora.is_some() && job.dtype == Dtype::Bf16 { all } else { 0 }
}

/// Whether products run in a layout of their own.
fn copies(job: &Job) -> bool {
    job.place == Place::Cpu && job.dtype == Dtype::F32
}

/// Bytes that one patch keeps in one block of the vision tower.
#[must_use]
pub fn vision_block(shape: &Shape, job: &Job) -> u64 {
    let (d, i, matrices) = (shape.vision.width, shape.vision.inner, shape.vision.matrices);
    let (norms, wide) = match job.dtype {
        Dtype::F32 => (4 * d, 4 * 4 * d),
        Dtype::Bf16 => (6 * d, (4 * 4 + 2 * 2 + 2 * 4) * d),
    };
    let copies = if copies(job) { 9 * d + matrices * i } else { 0 };
    (norms + 5 * d + (1 + matrices) * i + copies) * job.width()
        + wide
        + adapted(job, 16 * d + 4 * i)
}

/// Bytes that a training pass over `tokens` tokens with `patches` trained patches, keeps at its
/// worst. With recomputation every layer keeps its input, and one layer of the larger tower everything else.
#[must_use]
pub fn training(shape: &Shape, job: &Job, tokens: u64, patches: u64) -> u64 {
    let (text, vision) = (text_layer(shape, job) * tokens, vision_block(shape, job) * patches);
    if job.train.recompute {
        let inputs = shape.layers * shape.hidden * tokens
            + shape.vision.depth * shape.vision.width * patches;
        inputs * job.width() + text.max(vision)
    } else {
        text * shape.layers + vision * shape.vision.depth
    }
}

/// Bytes that a pass without gradient over `tokens` tokens needs at a time: the widest moment of a layer.
#[must_use]
pub fn passing(shape: &Shape, job: &Job, tokens: u64) -> u64 {
    let feed_forward = 3 * shape.hidden + 3 * shape.inner;
    let attention = 2 * shape.hidden + 6 * shape.queries;
    tokens * feed_forward.max(attention) * job.width()
}

/// Bytes that a pass of the vision tower without gradient over `patches` patches needs at a time.
#[must_use]
pub fn passing_vision(shape: &Shape, job: &Job, patches: u64) -> u64 {
    let (d, i) = (shape.vision.width, shape.vision.inner);
    let feed_forward = (3 * d + shape.vision.matrices * i) * job.width();
    let attention = 7 * d * job.width() + 6 * d * 4;
    patches * (shape.vision.patch * job.width() + feed_forward.max(attention))
}
