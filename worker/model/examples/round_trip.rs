//! Loads a model directory (or draws weights where it has none), saves it elsewhere, and writes the logits
//! of a fixed prompt beside it, for `tests/peers/model_round_trip.py` to compare.
//!
//! `cargo run -p medevo-model --example round_trip -- FROM TO`

use std::path::PathBuf;

use anyhow::{Context, Result};
use medevo_model::{Causal, Encoder, ModelConfig, Qwen25Vl};
use tch::{Device, Kind, Tensor};

fn main() -> Result<()> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let from = paths.next().context("usage: round_trip FROM TO")?;
    let to = paths.next().context("usage: round_trip FROM TO")?;
    let has_weights =
        ["model.safetensors", "model.safetensors.index.json"].iter().any(|f| from.join(f).exists());
    let model = if has_weights {
        Qwen25Vl::load(&from, Kind::Float, Device::Cpu)?
    } else {
        Qwen25Vl::random(ModelConfig::load(&from)?, 0, Device::Cpu)
    };
    for path in model.save(&to)? {
        println!("{}", path.display());
    }

    let prompt = Encoder::load(&to)?.prompt("which organ is abnormal ?", &[])?;
    let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::from_slice(&ids);
    let positions = Tensor::from_slice(&prompt.positions.concat()).view([3, 1, -1]);
    let _no_grad = tch::no_grad_guard();
    let hidden = model.text(&model.embed(&ids.unsqueeze(0)), &positions, &mut Causal);
    let logits = model.logits(&hidden.squeeze_dim(0));
    let mut beside = to.into_os_string();
    beside.push(".logits.safetensors");
    Tensor::write_safetensors(&[("ids", ids), ("logits", logits)], &beside)?;
    Ok(())
}
