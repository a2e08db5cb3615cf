//! Fresh weights from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::{Device, Tensor};

use super::{Tensors, expected};
use crate::config::ModelConfig;

/// Standard deviation of the two input maps, the embeddings and the patch projection, wherever
/// `initializer_range` is wider. Nothing normalises what they write to the residual stream, and a tied
/// embedding also sets the scale of the first logits.
const INPUT_RANGE: f64 = 0.02;

/// Draws every tensor as the reference does: norms 1, biases 0, all else normal with the standard
/// deviation `initializer_range`. Each tensor has its own random stream, so the same seed and shape give
/// the same weights on every machine.
pub(crate) fn draw(config: &ModelConfig, seed: u64, device: Device) -> Tensors {
    let tensor = |(stream, (name, shape)): (usize, (String, Vec<i64>))| {
        let count = shape.iter().product::<i64>() as usize;
        let values = if name.ends_with(".bias") {
            vec![0.0; count]
        } else if shape.len() == 1 {
            vec![1.0; count]
        } else {
            let range = if name.contains(".visual.") {
                config.vision.initializer_range
            } else {
                config.text.initializer_range
            };
            let input = name.contains("embed");
            normal(count, if input { range.min(INPUT_RANGE) } else { range }, seed, stream as u64)
        };
        (name, Tensor::from_slice(&values).reshape(&shape).to_device(device))
    };
    Tensors(expected(config).into_iter().enumerate().map(tensor).collect())
}

/// Normal numbers by Box and Muller's transform.
fn normal(count: usize, std: f64, seed: u64, stream: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    // In (0, 1]: the logarithm needs a number above 0.
    let mut uniform = || ((rng.next_u64() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        values.push((std * radius * angle.cos()) as f32);
        values.push((std * radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}
