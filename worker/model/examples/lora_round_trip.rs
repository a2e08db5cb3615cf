//! Puts an adapter of random numbers beside a model directory, saves it, merges it, and writes the logits of a
//! fixed prompt, for `tests/peers/lora_round_trip.py` to compare.
//!
//! `cargo run -p medevo-model --example lora_round_trip -- MODEL OUT frozen|trained TARGET,TARGET...`

use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use medevo_model::{Adapter, Causal, Encoder, Qwen25Vl};
use medevo_types::settings::LoraSettings;
use tch::{Device, Kind, Tensor};

const USAGE: &str = "usage: lora_round_trip MODEL OUT frozen|trained TARGET,TARGET...";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, out, vision, targets] = &arguments[..] else { anyhow::bail!(USAGE) };
    let (from, out) = (PathBuf::from(from), PathBuf::from(out));
    let _no_grad = tch::no_grad_guard();
    let base = Qwen25Vl::load(&from, Kind::Float, Device::Cpu)?;
    let targets = targets.split(',').map(str::to_owned).collect();
    let settings = LoraSettings { rank: 3, alpha: 5.0, targets };
    let adapter = Adapter::draw(&base.config, &settings, vision == "frozen", 1, Device::Cpu)
        .map_err(Error::msg)?;
    let model = base.with_adapter(adapter);
    tch::manual_seed(2);
    for (_, tensor) in model.parameters().iter().filter(|(name, _)| name.contains("lora_B")) {
        let _ = tensor.shallow_clone().normal_(0.0, 0.2);
    }
    model.save(&out.join("adapter"))?;

    let prompt = Encoder::load(&from)?.prompt("which organ is abnormal ?", &[])?;
    let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::from_slice(&ids);
    let positions = Tensor::from_slice(&prompt.positions.concat()).view([3, 1, -1]);
    let hidden = model.text(&model.embed(&ids.unsqueeze(0)), &positions, &mut Causal);
    let logits = model.logits(&hidden.squeeze_dim(0));
    Tensor::write_safetensors(&[("ids", ids), ("logits", logits)], out.join("logits.safetensors"))?;
    model.merge().save(&out.join("merged")).context("cannot save the merged model")?;
    Ok(())
}
