//! The layers that both towers are built of.

use tch::{Kind, Tensor};

use crate::product;
use crate::weights::Tensors;

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(tensors: &Tensors, name: &str, bias: bool) -> Self {
        Self {
            weight: tensors.get(&format!("{name}.weight")),
            bias: bias.then(|| tensors.get(&format!("{name}.bias"))),
        }
    }

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        product::linear(x, &self.weight, self.bias.as_ref())
    }
}

/// Root mean square norm; the statistics are taken in f32 whatever the weights' type.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(tensors: &Tensors, name: &str, eps: f64) -> Self {
        Self { weight: tensors.get(&format!("{name}.weight")), eps }
    }

    /// `[.., width]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        if x.kind() == Kind::Float {
            return x.rms_norm(self.weight.size(), Some(&self.weight), self.eps);
        }
        // The reference rounds before it multiplies by the weight; libtorch's own norm does not.
        let wide = x.to_kind(Kind::Float);
        let scale = (wide.square().mean_dim(-1i64, true, None) + self.eps).rsqrt();
        (wide * scale).to_kind(x.kind()) * &self.weight
    }
}

/// SwiGLU: `down(silu(gate(x)) · up(x))`.
#[derive(Debug)]
pub(crate) struct SwiGlu {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl SwiGlu {
    pub(crate) fn new(tensors: &Tensors, name: &str, bias: bool) -> Self {
        let linear = |part: &str| Linear::new(tensors, &format!("{name}.{part}_proj"), bias);
        Self { gate: linear("gate"), up: linear("up"), down: linear("down") }
    }

    /// `[.., width]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&(self.gate.forward(x).silu() * self.up.forward(x)))
    }
}
