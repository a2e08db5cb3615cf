//! Rotary position embedding, one-, two- and three-dimensional.

use tch::{Device, Kind, Tensor};

/// `1 / θ^(2i/dim)` for `i` below `dim / 2`: `[dim / 2]` f32. Computed in f32 on the CPU, as the reference does;
/// another device's powers have other last bits, and long positions multiply them.
pub(crate) fn inverse_frequencies(dim: i64, theta: f64, device: Device) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let exponents = Tensor::arange_start_step(0i64, dim, 2, options) / dim as f64;
    Tensor::pow_scalar(theta, &exponents).reciprocal().to_device(device)
}

/// Swaps the halves of the last dimension, the second negated.
fn rotate_half(x: &Tensor) -> Tensor {
    let half = x.size()[x.dim() - 1] / 2;
    Tensor::cat(&[-x.narrow(-1, half, half), x.narrow(-1, 0, half)], -1)
}

/// The cosine and sine of every position and channel; both halves of the channels hold the same angles.
#[derive(Debug)]
pub(crate) struct Angles {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Angles {
    /// From `[.., dim / 2]` angles in radians.
    pub(crate) fn new(radians: &Tensor, kind: Kind) -> Self {
        let both = Tensor::cat(&[radians, radians], -1);
        Self { cos: both.cos().to_kind(kind), sin: both.sin().to_kind(kind) }
    }

    /// Inserts a dimension of 1 for the heads.
    pub(crate) fn unsqueeze(&self, dim: i64) -> Self {
        Self { cos: self.cos.unsqueeze(dim), sin: self.sin.unsqueeze(dim) }
    }

    /// The rows `index` of the first dimension.
    pub(crate) fn rows(&self, index: &Tensor) -> Self {
        Self { cos: self.cos.index_select(0, index), sin: self.sin.index_select(0, index) }
    }

    /// Rotates `x`; the angles broadcast to its shape.
    pub(crate) fn rotate(&self, x: &Tensor) -> Tensor {
        x * &self.cos + rotate_half(x) * &self.sin
    }
}
