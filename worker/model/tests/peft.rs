//! The adapters that we save, PEFT opens. For real: `ops/setup-peers` installs it.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};
use std::process::Command;

use medevo_model::{Adapter, Causal, Encoder, Qwen25Vl};
use medevo_types::settings::LoraSettings;
use tch::{Device, Kind, Tensor};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Puts an adapter of random numbers beside the model in `from`; saves it, what it merges into, and the logits of a
/// fixed prompt in `out`.
fn save(from: &Path, out: &Path, freeze_vision: bool, targets: &str) {
    let _no_grad = tch::no_grad_guard();
    std::fs::create_dir(out).unwrap();
    let base = Qwen25Vl::load(from, Kind::Float, Device::Cpu).unwrap();
    let targets = targets.split(',').map(str::to_owned).collect();
    let settings = LoraSettings { rank: 3, alpha: 5.0, targets };
    let adapter = Adapter::draw(&base.config, &settings, freeze_vision, 1, Device::Cpu).unwrap();
    let model = base.with_adapter(adapter);
    tch::manual_seed(2);
    for (_, tensor) in model.parameters().iter().filter(|(name, _)| name.contains("lora_B")) {
        let _ = tensor.shallow_clone().normal_(0.0, 0.2);
    }
    model.save(&out.join("adapter")).unwrap();

    let prompt = Encoder::load(from).unwrap().prompt("which organ is abnormal ?", &[]).unwrap();
    let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::from_slice(&ids);
    let positions = Tensor::from_slice(&prompt.positions.concat()).view([3, 1, -1]);
    let hidden = model.text(&model.embed(&ids.unsqueeze(0)), &positions, &mut Causal);
    let logits = model.logits(&hidden.squeeze_dim(0));
    let all = [("ids", ids), ("logits", logits)];
    Tensor::write_safetensors(&all, out.join("logits.safetensors")).unwrap();
    model.merge().save(&out.join("merged")).unwrap();
}

/// An adapter that only we can open would tie its owner to us. Both towers and the decoder alone, from both schemes of
/// tensor names.
#[test]
fn peft_opens_the_adapters_that_we_save() {
    let python = root().join(".peers/bin/python");
    assert!(
        python.exists(),
        "PEFT is not there to open what we saved, so this cannot be tested: run ops/setup-peers, which \
         installs it into .peers"
    );
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(root().join("tests/peers/lora_round_trip.py"));
    for scheme in ["nested", "flat"] {
        for (name, frozen, targets) in [
            ("decoder", true, "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"),
            ("both", false, "q_proj,v_proj,up_proj,qkv,attn.proj,mlp.0,mlp.2"),
        ] {
            let from = root().join("tests/golden/model").join(scheme);
            let out = scratch.path().join(format!("{scheme}-{name}"));
            save(&from, &out, frozen, targets);
            command.arg(from).arg(out);
        }
    }
    let output = command
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        // Where the tests' libtorch lies; Python finds its own.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("tensors equal").count(), 4, "{said}");
}
