//! `x Wᵀ + b` by the faster of the libraries that libtorch brings.

use tch::{Device, Kind, Tensor};

/// From this many rows on, oneDNN's f32 product is taken on the CPU. libtorch's own choice is MKL, which
/// leaves the wider vector units of processors that are not Intel's idle: on such a one oneDNN is about twice
/// as fast. Below, moving in and out of its layout costs more than it saves.
const ROWS: usize = 48;

/// `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]` to `[.., out]`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let mut size = x.size();
    let (Some(width), Device::Cpu, Kind::Float, Kind::Float) =
        (size.last_mut(), x.device(), x.kind(), weight.kind())
    else {
        return x.linear(weight, bias);
    };
    if x.numel() < ROWS * usize::try_from(*width).unwrap_or(0) || !tch::utils::has_mkldnn() {
        return x.linear(weight, bias);
    }
    let rows = x.reshape([-1, *width]).g_to_mkldnn(None);
    *width = weight.size()[0];
    rows.mkldnn_linear(weight, bias).to_dense(None, true).view(size.as_slice())
}
