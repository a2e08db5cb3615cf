//! What a forward pass keeps for the backward pass, and what it needs for a moment.
//!
//! Counted from the tensors that automatic differentiation saves in the engine's layers. With H the hidden
//! width, Q and K the widths of queries and keys, I the inner width, for each token and decoder layer:
//! - two norms: input, normed, scaled: 3 H each; in bf16 the input is saved in f32 besides;
//! - queries: before the rotation, its half turned, folded to rows, attended, joined: 5 Q; keys: before, half
//!   turned, after: 3 K; values: K;
//! - SwiGLU: gate, its SiLU, up, their product: 4 I;
//! - the mask: one f32 number (bf16 on a GPU) a pair of tokens of a row and query head of a group.
//!
//! A block of the vision tower (width D, inner width I) keeps a patch's two norms 6 D, queries, keys and values
//! 3 D, the turned ones and their halves 4 D in f32 and 2 D beside them in bf16, attended and joined 2 D, and 4 I.

use medevo_types::settings::Dtype;

use crate::{
    job::{Job, Place},
    shape::Shape,
};

/// Bytes that one token keeps in one decoder layer, in rows of `row` tokens.
#[must_use]
pub fn text_layer(shape: &Shape, job: &Job, row: u64) -> u64 {
    let (h, q, k, i) = (shape.hidden, shape.queries, shape.keys, shape.inner);
    let wide = if job.dtype == Dtype::Bf16 { 2 * 4 * h } else { 0 };
    let numbers = 6 * h + 5 * q + 4 * k + 4 * i;
    numbers * job.width() + wide + row * mask(shape, job)
}

/// Bytes of the mask for a pair of tokens.
fn mask(shape: &Shape, job: &Job) -> u64 {
    let group = shape.queries / shape.keys.max(1);
    let width = if job.place == Place::Gpu { job.width() } else { 4 };
    // As it is given, one byte, and as the kernel wants it.
    group * (1 + width)
}

/// Bytes that one patch keeps in one block of the vision tower.
#[must_use]
pub fn vision_block(shape: &Shape, job: &Job) -> u64 {
    let (d, i) = (shape.vision.width, shape.vision.inner);
    let numbers = 6 * d + 3 * d + 2 * d + (1 + shape.vision.matrices) * i;
    let wide = match job.dtype {
        Dtype::F32 => 4 * 4 * d,
        Dtype::Bf16 => (4 * 4 + 2 * 2 + 2 * 4) * d,
    };
    numbers * job.width() + wide
}

/// Bytes that a training pass over `tokens` tokens in rows of `row`, with `patches` trained patches, keeps at its
/// worst. With recomputation every layer keeps its input, and one layer of the larger tower everything else.
#[must_use]
pub fn training(shape: &Shape, job: &Job, tokens: u64, row: u64, patches: u64) -> u64 {
    let (text, vision) = (text_layer(shape, job, row) * tokens, vision_block(shape, job) * patches);
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
