//! Where the two families' blocks differ: the norm and the MLP.

use tch::Tensor;

use crate::config::Family;
use crate::layer::{Linear, RmsNorm, SwiGlu};
use crate::weights::Tensors;

/// The reference writes this one into the code, not into the configuration.
const EPS: f64 = 1e-6;

/// The norm of a block or of the merger.
#[derive(Debug)]
pub(super) enum Norm {
    /// Qwen2.5-VL.
    Rms(RmsNorm),
    /// Qwen2-VL: LayerNorm with a bias.
    Layer { weight: Tensor, bias: Tensor },
}

impl Norm {
    pub(super) fn new(tensors: &Tensors, name: &str, family: Family) -> Self {
        match family {
            Family::Qwen25Vl => Self::Rms(RmsNorm::new(tensors, name, EPS)),
            Family::Qwen2Vl => Self::Layer {
                weight: tensors.get(&format!("{name}.weight")),
                bias: tensors.get(&format!("{name}.bias")),
            },
        }
    }

    /// `[.., width]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer { weight, bias } => {
                x.layer_norm(weight.size(), Some(weight), Some(bias), EPS, false)
            }
        }
    }
}

/// The MLP of a block.
#[derive(Debug)]
pub(super) enum Mlp {
    /// Qwen2.5-VL.
    SwiGlu(SwiGlu),
    /// Qwen2-VL: two maps with the quick GELU, `x · sigmoid(1.702 x)`, between them.
    QuickGelu { fc1: Linear, fc2: Linear },
}

impl Mlp {
    pub(super) fn new(tensors: &Tensors, name: &str, family: Family) -> Self {
        match family {
            Family::Qwen25Vl => Self::SwiGlu(SwiGlu::new(tensors, name, true)),
            Family::Qwen2Vl => Self::QuickGelu {
                fc1: Linear::new(tensors, &format!("{name}.fc1"), true),
                fc2: Linear::new(tensors, &format!("{name}.fc2"), true),
            },
        }
    }

    /// `[.., width]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::SwiGlu(mlp) => mlp.forward(x),
            Self::QuickGelu { fc1, fc2 } => {
                let x = fc1.forward(x);
                fc2.forward(&(&x * (&x * 1.702).sigmoid()))
            }
        }
    }

    /// Its linear layers.
    pub(super) fn linears(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::SwiGlu(mlp) => mlp.linears().into(),
            Self::QuickGelu { fc1, fc2 } => vec![fc1, fc2],
        }
    }
}
