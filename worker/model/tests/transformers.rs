//! What we save, transformers opens; what it saves, we open. For real: `ops/setup-peers` installs it.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};
use std::process::Command;

use medevo_model::{Causal, Encoder, ImageProcessor, ModelConfig, Pixels, Qwen25Vl};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(variant: &str) -> PathBuf {
    root().join("tests/golden/model").join(variant)
}

/// Makes `to` with all files of `from` that are not weights.
fn copy_without_weights(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if !name.to_str().unwrap().contains("safetensors") {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// A directory with flat names, in one file and under the names of the reference's modules.
fn renamed(source: &Path, scratch: &Path) -> Qwen25Vl {
    copy_without_weights(source, scratch);
    let model = Qwen25Vl::load(source, Kind::Float, Device::Cpu).unwrap();
    Tensor::write_safetensors(model.parameters(), scratch.join("model.safetensors")).unwrap();
    Qwen25Vl::load(scratch, Kind::Float, Device::Cpu).unwrap()
}

/// Fresh weights, wide enough that each of them moves the logits, for the files of `source` with the
/// embeddings tied or not.
fn drawn(source: &Path, tied: bool, scratch: &Path) -> Qwen25Vl {
    copy_without_weights(source, scratch);
    let path = scratch.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["tie_word_embeddings"] = tied.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let model = Qwen25Vl::random(ModelConfig::load(scratch).unwrap(), 5, Device::Cpu);
    tch::no_grad(|| {
        for (number, (_, tensor)) in model.parameters().iter().enumerate() {
            let count = tensor.numel() as i64;
            let wave = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * (1.1 + number as f64))
                .sin()
                .view_as(tensor);
            let _ = tensor.shallow_clone().g_add_(&(wave * 0.05));
        }
    });
    model
}

/// Writes a prompt with two images and our f32 logits of it beside a saved directory.
fn write_prompt(saved: &Path) {
    let model = Qwen25Vl::load(saved, Kind::Float, Device::Cpu).unwrap();
    let processor = ImageProcessor::load(saved).unwrap();
    let images: Vec<Pixels> = ["odd.png", "wide.png"]
        .iter()
        .map(|name| processor.open(&golden("images").join(name)).unwrap())
        .collect();
    let grids: Vec<[i64; 3]> = images.iter().map(|image| image.grid).collect();
    let prompt = Encoder::load(saved).unwrap().prompt("which organ is abnormal ?", &grids).unwrap();
    let ids: Vec<i64> = prompt.ids.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::from_slice(&ids);
    let positions = Tensor::from_slice(&prompt.positions.concat()).view([3, 1, -1]);
    let logits = tch::no_grad(|| {
        let features = model.vision(&images.iter().collect::<Vec<_>>());
        let batch = ids.unsqueeze(0);
        let embeds = model.place_images(&model.embed(&batch), &batch, &features).unwrap();
        model.logits(&model.text(&embeds, &positions, &mut Causal).squeeze_dim(0))
    });
    let patches: Vec<&Tensor> = images.iter().map(|image| &image.patches).collect();
    let patches = Tensor::cat(&patches, 0);
    let grid = Tensor::from_slice(&grids.concat()).view([-1, 3]);
    let all = [("ids", ids), ("logits", logits), ("patches", patches), ("grid", grid)];
    Tensor::write_safetensors(&all, beside(saved, "prompt.safetensors")).unwrap();
}

fn beside(saved: &Path, ending: &str) -> PathBuf {
    let mut path = saved.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Runs the script with the Python that `ops/setup-peers` made; its absence is a failure that says so.
fn transformers(directories: &[PathBuf]) {
    let python = root().join(".peers/bin/python");
    assert!(
        python.exists(),
        "transformers is not there to open what we saved, so this cannot be tested: run ops/setup-peers, \
         which installs it into .peers"
    );
    let output = Command::new(python)
        .arg(root().join("tests/peers/model_round_trip.py"))
        .args(directories)
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        // Where the tests' libtorch lies; Python finds its own.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}{failed}");
    assert_eq!(said.matches("relative error").count(), directories.len(), "{said}{failed}");
}

/// A checkpoint that only we can open is worth little. Both families, tied and untied, from one file and
/// from several, in f32 and in bf16, with the tensors' names in either scheme, loaded and drawn.
#[test]
fn transformers_opens_what_we_save_and_we_open_what_it_saves() {
    let scratch = tempfile::tempdir().unwrap();
    let mut saved = Vec::new();
    let mut save = |name: &str, model: Qwen25Vl| {
        let dir = scratch.path().join(name);
        model.save(&dir).unwrap();
        saved.push(dir);
    };
    for variant in ["nested", "flat", "qwen2_vl"] {
        for (name, kind) in [("f32", Kind::Float), ("bf16", Kind::BFloat16)] {
            let model = Qwen25Vl::load(&golden(variant), kind, Device::Cpu).unwrap();
            save(&format!("{variant}-{name}"), model);
        }
    }
    for (name, source, tied) in [
        ("qwen2_vl-untied", golden("qwen2_vl"), false),
        ("flat-tied", golden("flat"), true),
        ("demo", root().join("ops/demo/tiny-qwen2.5-vl"), true),
    ] {
        save(name, drawn(&source, tied, &scratch.path().join(format!("{name}-source"))));
    }
    save("qwen2_vl-nested", renamed(&golden("qwen2_vl"), &scratch.path().join("renamed")));
    for dir in &saved {
        write_prompt(dir);
    }

    transformers(&saved);

    for dir in &saved {
        let ours = Qwen25Vl::load(dir, Kind::Float, Device::Cpu).unwrap();
        let again = beside(dir, "again");
        assert!(again.join("model.safetensors.index.json").exists(), "it saves in several files");
        let theirs = Qwen25Vl::load(&again, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(ours.config.family, theirs.config.family);
        assert_eq!(ours.parameters().len(), theirs.parameters().len());
        for ((name, a), (other, b)) in ours.parameters().iter().zip(theirs.parameters()) {
            assert!(name == other && a.equal(b), "{}: {name}", dir.display());
        }
    }
}
