//! Model directories: what is refused, what is written, what is trained.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::path::{Path, PathBuf};

use medevo_model::{Attend, Causal, Family, LoadError, ModelConfig, Pixels, Qwen25Vl, scaled_dot};
use tch::{Device, Kind, Tensor};

fn golden(variant: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model").join(variant)
}

fn demo_config() -> ModelConfig {
    ModelConfig::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/demo/tiny-qwen2.5-vl"))
        .unwrap()
}

fn copy(variant: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(variant)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<Qwen25Vl, LoadError> {
    Qwen25Vl::load(dir, Kind::Float, Device::Cpu)
}

fn equal(a: &Qwen25Vl, b: &Qwen25Vl) {
    assert_eq!(a.parameters().len(), b.parameters().len());
    for ((name, x), (other, y)) in a.parameters().iter().zip(b.parameters()) {
        assert_eq!(name, other);
        assert!(x.equal(y), "{name}");
    }
}

/// A checkpoint that lost or renamed a tensor would not open, or would open as another model.
#[test]
fn saved_and_loaded_weights_are_the_same() {
    for variant in ["nested", "flat", "qwen2_vl"] {
        let model = load(&golden(variant)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("checkpoint");
        let written = model.save(&out).unwrap();
        assert!(written.iter().all(|p| p.is_file()));
        assert!(out.join("config.json").is_file() && out.join("tokenizer.json").is_file());
        equal(&model, &load(&out).unwrap());
        // Saving over its own source leaves its files whole.
        load(&out).unwrap().save(&out).unwrap();
        equal(&model, &load(&out).unwrap());
    }
}

/// An index beside the new file would lead every reader to the old weights.
#[test]
fn a_sharded_directory_is_not_saved_over() {
    let dir = copy("nested");
    let message = load(dir.path()).unwrap().save(dir.path()).unwrap_err().to_string();
    assert!(message.contains("several files"), "{message}");
}

#[test]
fn every_missing_extra_and_misshapen_tensor_is_named() {
    let dir = copy("flat");
    let path = dir.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    tensors.retain(|(n, _)| n != "visual.merger.mlp.2.bias" && n != "model.norm.weight");
    for (name, tensor) in &mut tensors {
        if name == "lm_head.weight" {
            *tensor = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
        }
    }
    tensors.push((
        "visual.blocks.99.attn.qkv.weight".into(),
        Tensor::zeros([1], (Kind::Float, Device::Cpu)),
    ));
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let error = load(dir.path()).unwrap_err();
    let LoadError::Tensors { missing, extra, misshapen, .. } = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 2);
    assert_eq!(extra, &["visual.blocks.99.attn.qkv.weight"]);
    assert_eq!(misshapen.len(), 1);
    let message = error.to_string();
    for part in ["merger.mlp.2.bias", "norm.weight", "blocks.99", "lm_head.weight"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn damaged_files_are_refused_with_their_name() {
    let dir = copy("flat");
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() - 100], &bytes[..20], &bytes[..3], &[0xff; 64][..]] {
        std::fs::write(&path, damaged).unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("model.safetensors") && message.contains("copy it again"),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Io { .. })));
}

#[test]
fn configurations_that_cannot_be_run_are_refused_by_key() {
    let text = std::fs::read_to_string(golden("flat").join("config.json")).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("model_type", serde_json::json!("llava")),
        ("use_sliding_window", serde_json::json!(true)),
        ("hidden_act", serde_json::json!("gelu")),
        ("num_attention_heads", serde_json::json!(7)),
        ("hidden_size", serde_json::json!("wide")),
        ("vocab_size", serde_json::json!(0)),
        ("rope_scaling", serde_json::json!({"type": "yarn", "mrope_section": [2, 1, 1]})),
        ("rope_scaling", serde_json::json!({"type": "mrope", "mrope_section": [2, 1, 9]})),
        ("vision_config", serde_json::Value::Null),
    ] {
        let mut changed = whole.clone();
        changed[key] = value;
        let message = ModelConfig::from_json(&changed).unwrap_err();
        assert!(message.contains(key), "{key}: {message}");
    }
}

/// Qwen2-VL's tower has keys of its own; another activation would run, and be another model.
#[test]
fn configurations_of_qwen2_vl_are_refused_by_key() {
    let text = std::fs::read_to_string(golden("qwen2_vl").join("config.json")).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let read = ModelConfig::from_json(&whole).unwrap();
    assert_eq!(read.family, Family::Qwen2Vl);
    assert_eq!((read.vision.hidden_size, read.vision.intermediate_size), (32, 96));
    for (key, value) in [
        ("hidden_act", serde_json::json!("silu")),
        ("embed_dim", serde_json::json!(30)),
        ("num_heads", serde_json::json!(7)),
        ("mlp_ratio", serde_json::json!("four")),
        ("mlp_ratio", serde_json::json!(0)),
        ("hidden_size", serde_json::json!(64)),
    ] {
        let mut changed = whole.clone();
        changed["vision_config"][key] = value;
        let message = ModelConfig::from_json(&changed).unwrap_err();
        assert!(
            message.contains(&format!("vision_config.{key}")) || message.contains("embed_dim"),
            "{key}: {message}"
        );
    }
    let mut unnamed = whole.clone();
    unnamed.as_object_mut().unwrap().remove("model_type");
    let message = ModelConfig::from_json(&unnamed).unwrap_err();
    assert!(message.contains("model_type is missing"), "{message}");
}

#[test]
fn a_seed_makes_the_same_weights_and_another_makes_others() {
    let draw = |seed| Qwen25Vl::random(demo_config(), seed, Device::Cpu);
    let (a, b, c) = (draw(7), draw(7), draw(8));
    equal(&a, &b);
    let matrix = |m: &Qwen25Vl| {
        m.parameters()
            .iter()
            .find(|(n, _)| n.ends_with("layers.0.mlp.up_proj.weight"))
            .unwrap()
            .1
            .copy()
    };
    assert!(!matrix(&a).equal(&matrix(&c)));
    assert!((matrix(&a).std(true).double_value(&[]) - 0.06).abs() < 0.002);
    assert!(a.parameters().is_sorted_by(|x, y| x.0 < y.0));
    assert!(a.parameters().iter().all(|(_, t)| t.requires_grad() && t.is_leaf()));
    a.copy_from(&c);
    equal(&a, &c);
}

/// The demo's patches: nine tokens an image.
fn pixels(seed: f64) -> Pixels {
    let patches =
        (Tensor::arange(36 * 1176, (Kind::Float, Device::Cpu)) * seed).sin().view([36, 1176]);
    Pixels { patches, grid: [1, 6, 6], digest: [0; 32] }
}

/// Both towers, one loss.
fn loss(model: &Qwen25Vl) -> Tensor {
    let ids = Tensor::from_slice(&[3i64, 5, 5, 5, 5, 5, 5, 5, 5, 5, 4, 30, 31, 2]).unsqueeze(0);
    let positions = Tensor::arange(14, (Kind::Int64, Device::Cpu)).expand([3, 1, 14], false);
    let features = model.vision(&[&pixels(0.37)]);
    let embeds = model.place_images(&model.embed(&ids), &ids, &features).unwrap();
    let hidden = model.text(&embeds, &positions, &mut Causal);
    model.logits(&hidden.squeeze_dim(0)).log_softmax(-1, Kind::Float).select(1, 9).mean(Kind::Float)
}

/// A tensor that no gradient reaches is a tensor that is never trained.
#[test]
fn gradients_reach_every_parameter() {
    let mut untied = demo_config();
    untied.tie_word_embeddings = !untied.tie_word_embeddings;
    let qwen2_vl = ModelConfig::load(&golden("qwen2_vl")).unwrap();
    for config in [demo_config(), untied, qwen2_vl] {
        let model = Qwen25Vl::random(config, 1, Device::Cpu);
        loss(&model).backward();
        for (name, tensor) in model.parameters() {
            assert!(tensor.grad().defined(), "{name} has no gradient");
            let total = tensor.grad().abs().sum(Kind::Float).double_value(&[]);
            assert!(total > 0.0 && total.is_finite(), "{name}: {total}");
        }
        model.set_requires_grad(false, true);
        assert!(
            model.parameters().iter().all(|(n, t)| t.requires_grad() != Qwen25Vl::is_vision(n))
        );
    }
}

/// The gradient agrees with a difference quotient along a random direction, so nothing is cut off.
#[test]
fn gradients_are_the_slope_of_the_loss() {
    let model = Qwen25Vl::random(demo_config(), 2, Device::Cpu);
    let directions: Vec<Tensor> = model
        .parameters()
        .iter()
        .enumerate()
        .map(|(i, (_, t))| {
            (Tensor::arange(t.numel() as i64, (Kind::Float, Device::Cpu)) * (1.3 + i as f64))
                .sin()
                .view_as(t)
        })
        .collect();
    loss(&model).backward();
    let slope: f64 = model
        .parameters()
        .iter()
        .zip(&directions)
        .map(|((_, t), d)| (t.grad() * d).sum(Kind::Double).double_value(&[]))
        .sum();
    let step = |by: f64| {
        tch::no_grad(|| {
            for ((_, t), d) in model.parameters().iter().zip(&directions) {
                let _ = t.shallow_clone().g_add_(&(d * by));
            }
            loss(&model).double_value(&[])
        })
    };
    let h = 2e-4;
    let up = step(h);
    let down = step(-2.0 * h);
    let quotient = (up - down) / (2.0 * h);
    assert!((slope - quotient).abs() <= 0.02 * slope.abs().max(0.05), "{slope} against {quotient}");
}

#[test]
fn bf16_follows_f32() {
    let dir = golden("nested");
    let wide = load(&dir).unwrap();
    let narrow = Qwen25Vl::load(&dir, Kind::BFloat16, Device::Cpu).unwrap();
    let ids = Tensor::from_slice(&[30i64, 31, 32, 33]).unsqueeze(0);
    let positions = Tensor::arange(4, (Kind::Int64, Device::Cpu)).expand([3, 1, 4], false);
    let last = |m: &Qwen25Vl| m.text(&m.embed(&ids), &positions, &mut Causal).to_kind(Kind::Float);
    let (a, b) = (last(&wide), last(&narrow));
    let error = (&a - &b).norm().double_value(&[]) / a.norm().double_value(&[]);
    assert!(error < 0.03, "{error}");
    assert!(narrow.vision(&[&pixels(0.11)])[0].kind() == Kind::BFloat16);
}

/// Batched images must not see one another.
#[test]
fn an_image_is_the_same_alone_and_among_others() {
    let model = Qwen25Vl::random(demo_config(), 3, Device::Cpu);
    let other = Pixels {
        patches: Tensor::ones([8 * 4, 1176], (Kind::Float, Device::Cpu)),
        grid: [1, 8, 4],
        digest: [1; 32],
    };
    let (first, last) = (pixels(0.2), pixels(0.5));
    let together = model.vision(&[&first, &other, &last]);
    for (image, among) in [&first, &other, &last].into_iter().zip(&together) {
        let alone = &model.vision(&[image])[0];
        let error = (alone - among).abs().max().double_value(&[]);
        assert!(error < 1e-5, "{error}");
    }
    assert_eq!(together[1].size(), [8, 128]);
    assert!(model.vision(&[]).is_empty());
}

#[test]
fn images_and_placeholders_must_match_in_number() {
    let model = Qwen25Vl::random(demo_config(), 3, Device::Cpu);
    let ids = Tensor::from_slice(&[5i64, 5, 7]).unsqueeze(0);
    let embeds = model.embed(&ids);
    let features = |n: i64| Tensor::zeros([n, 128], (Kind::Float, Device::Cpu));
    for wrong in [vec![], vec![features(1)], vec![features(2), features(1)]] {
        let message = model.place_images(&embeds, &ids, &wrong).unwrap_err().to_string();
        assert!(message.contains("2 image placeholders"), "{message}");
    }
    assert!(model.place_images(&embeds, &ids, &[features(1), features(1)]).is_ok());
}

/// Right padding must not reach a real token, and folding query heads must change nothing.
#[test]
fn attention_is_causal_and_grouped_heads_share_keys() {
    let random = |h: i64| Tensor::randn([2, h, 5, 8], (Kind::Float, Device::Cpu));
    let (q, k, v) = (random(4), random(2), random(2));
    let whole = Causal.attend(0, &q, &k, &v);
    let cut = |t: &Tensor| t.narrow(2, 0, 3);
    let short = Causal.attend(0, &cut(&q), &cut(&k), &cut(&v));
    assert!((cut(&whole) - short).abs().max().double_value(&[]) < 1e-6);
    let mask = Tensor::ones([5, 5], (Kind::Bool, Device::Cpu)).tril(0);
    let folded = scaled_dot(&q, &k, &v, Some(&mask));
    assert!((&whole - folded).abs().max().double_value(&[]) < 1e-6);
    // Without a mask every query sees every key: the last one sees the same either way.
    let open = scaled_dot(&q, &k, &v, None).narrow(2, 4, 1);
    assert!((whole.narrow(2, 4, 1) - open).abs().max().double_value(&[]) < 1e-6);
}
