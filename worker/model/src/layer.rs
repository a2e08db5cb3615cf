//! The layers that both towers are built of.

use tch::{Kind, Tensor};

use crate::product;
use crate::weights::Tensors;

/// `y = x Wᵀ + b`, and a low-rank term beside it where the layer has an adapter.
#[derive(Debug)]
pub(crate) struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    adapter: Option<LowRank>,
}

impl Linear {
    pub(crate) fn new(tensors: &Tensors, name: &str, bias: bool) -> Self {
        Self {
            name: name.to_owned(),
            weight: tensors.get(&format!("{name}.weight")),
            bias: bias.then(|| tensors.get(&format!("{name}.bias"))),
            adapter: None,
        }
    }

    /// Its module's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Puts a low-rank term beside the weight.
    pub(crate) fn adapt(&mut self, adapter: LowRank) {
        self.adapter = Some(adapter);
    }

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = product::linear(x, &self.weight, self.bias.as_ref());
        match &self.adapter {
            Some(adapter) => adapter.beside(x, &y),
            None => y,
        }
    }

    /// Adds the low-rank term to the weight itself.
    pub(crate) fn merge(&mut self) {
        if let Some(adapter) = self.adapter.take() {
            adapter.add_to(&self.weight);
        }
    }
}

/// The low-rank term of a layer: `scale · B (A x)`.
#[derive(Debug)]
pub(crate) struct LowRank {
    /// `[rank, in]`, f32.
    a: Tensor,
    /// `[out, rank]`, f32.
    b: Tensor,
    scale: f64,
}

impl LowRank {
    pub(crate) fn new(a: &Tensor, b: &Tensor, scale: f64) -> Self {
        Self { a: a.shallow_clone(), b: b.shallow_clone(), scale }
    }

    /// `x` `[.., in]` and the frozen layer's `y` `[.., out]` to their sum, in y's type. The term is computed
    /// in f32, as PEFT does.
    fn beside(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let low = x.to_kind(Kind::Float).linear::<&Tensor>(&self.a, None) * self.scale;
        (y + low.linear::<&Tensor>(&self.b, None)).to_kind(y.kind())
    }

    /// `W + scale · B A`, computed in f32 and rounded once to the weight's type.
    fn add_to(&self, weight: &Tensor) {
        tch::no_grad(|| {
            let sum = weight.to_kind(Kind::Float) + self.b.matmul(&self.a) * self.scale;
            weight.shallow_clone().copy_(&sum);
        });
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

    pub(crate) fn linears(&mut self) -> [&mut Linear; 3] {
        [&mut self.gate, &mut self.up, &mut self.down]
    }

    /// `[.., width]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&(self.gate.forward(x).silu() * self.up.forward(x)))
    }
}
