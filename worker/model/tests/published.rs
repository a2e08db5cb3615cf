//! The published models' true shapes: every tensor of them, and the arithmetic at their widths.
//! The judge is `tests/golden/make_published_goldens.py`.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use medevo_model::{Causal, ModelConfig, Pixels, Qwen25Vl};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Largest difference allowed, relative to the largest magnitude of the golden.
const TOLERANCE: f64 = 1e-4;
/// As in the script: the vocabulary that is left, the image, and what is kept of a state.
const VOCABULARY: i64 = 600;
const GRID: [i64; 3] = [1, 10, 14];
const COLUMNS: i64 = 37;
const ROWS: i64 = 12;

/// What transformers says about a published model.
#[derive(Deserialize)]
struct Published {
    parameters: i64,
    /// By name; `#` stands for the number of the layer.
    tensors: HashMap<String, Folded>,
}

#[derive(Deserialize)]
struct Folded {
    shape: Vec<i64>,
    layers: Option<usize>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/published")
}

fn read(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(file)).unwrap()).unwrap()
}

/// A tensor more, fewer or of another shape would make the published weights unreadable.
#[test]
fn the_published_models_have_the_references_tensors() {
    let published: HashMap<String, Published> =
        serde_json::from_value(read("shapes.json")).unwrap();
    assert_eq!(published.len(), 4);
    for (name, reference) in published {
        let config = ModelConfig::from_json(&read(&format!("{name}.json"))).unwrap();
        let mut wanted: Vec<(String, Vec<i64>)> = Vec::new();
        for (tensor, folded) in reference.tensors {
            let names = match folded.layers {
                None => vec![tensor],
                Some(layers) => (0..layers).map(|i| tensor.replace('#', &i.to_string())).collect(),
            };
            wanted.extend(names.into_iter().map(|name| (name, folded.shape.clone())));
        }
        wanted.sort();
        let tensors = config.tensors();
        assert_eq!(tensors, wanted, "{name}");
        let parameters: i64 = tensors.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
        assert_eq!(parameters, reference.parameters, "{name}");
    }
}

/// `count` numbers in [-1, 1), exact in f32: the script's `uniform`.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let seed =
        name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let number = |i: usize| {
        let mut x = (i as u32).wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        ((x >> 8) as f32 - 8_388_608.0) / 8_388_608.0
    };
    (0..count).map(number).collect()
}

/// The script's `weight`.
fn weight(name: &str, shape: &[i64]) -> Tensor {
    let mut x = uniform(name, shape.iter().product::<i64>() as usize);
    if shape.len() == 1 {
        let middle = if name.ends_with(".weight") { 1.0 } else { 0.0 };
        x.iter_mut().for_each(|v| *v = *v * 0.2 + middle);
    } else {
        let inputs: i64 = shape[1..].iter().product();
        let size =
            if name.contains("embed_tokens") { 0.5 } else { (3.0 / inputs as f64).sqrt() as f32 };
        x.iter_mut().for_each(|v| *v *= size);
    }
    Tensor::from_slice(&x).view(shape)
}

/// The published model with few layers and a small vocabulary.
fn few_layers(name: &str, layers: i64) -> ModelConfig {
    let mut json = read(&format!("{name}.json"));
    for (key, value) in [
        ("num_hidden_layers", layers),
        ("vocab_size", VOCABULARY),
        ("image_token_id", 5),
        ("video_token_id", 6),
        ("vision_start_token_id", 3),
        ("vision_end_token_id", 4),
    ] {
        json[key] = json!(value);
    }
    json["vision_config"]["depth"] = json!(2);
    if json["vision_config"].get("fullatt_block_indexes").is_some() {
        json["vision_config"]["fullatt_block_indexes"] = json!([1]);
    }
    ModelConfig::from_json(&json).unwrap()
}

/// Tiny models cannot show what goes wrong at 28 heads, groups of 7 or sums over 18944 numbers. One model
/// after the other: the widest takes 1.4 GB.
#[test]
fn the_published_widths_give_the_references_numbers() {
    let path = folder().join("widths.safetensors");
    let goldens: HashMap<String, Tensor> =
        Tensor::read_safetensors(path).unwrap().into_iter().collect();
    let _no_grad = tch::no_grad_guard();
    let count = GRID.iter().product::<i64>();
    let patches = Tensor::from_slice(&uniform("patches", (count * 1176) as usize)).view([-1, 1176]);
    let pixels = Pixels { patches, grid: GRID, digest: [0; 32] };
    for (name, layers) in [("qwen2.5-vl-3b", 2), ("qwen2.5-vl-7b", 1), ("qwen2-vl-2b", 2)] {
        let close = |what: &str, state: &Tensor| {
            let golden = |key: &str| &goldens[&format!("{name}/{what}{key}")];
            let state = state.reshape([-1, state.size()[state.dim() - 1]]);
            let rows = state.size()[0];
            let kept = state.slice(0, 0, rows, (rows / ROWS).max(1)).slice(1, 0, i64::MAX, COLUMNS);
            let sums = state.to_kind(Kind::Double).sum_dim_intlist(1i64, false, None);
            for (got, wanted) in [(kept, golden("")), (sums, golden("/sums"))] {
                assert_eq!(got.size(), wanted.size(), "{name}: {what}");
                let error = (got - wanted).abs().max() / wanted.abs().max();
                let error = error.double_value(&[]);
                assert!(error <= TOLERANCE, "{name}: {what}: relative error {error:e}");
            }
        };
        let model = Qwen25Vl::from_fn(few_layers(name, layers), Device::Cpu, weight);
        let (features, blocks) = model.vision_states(&[&pixels]);
        for (block, state) in blocks.iter().enumerate().skip(1) {
            close(&format!("vision/{block}"), state);
        }
        close("features", &features[0]);
        let ids = &goldens["ids"];
        let embeds = model.place_images(&model.embed(ids), ids, &features).unwrap();
        let (last, states) = model.text_states(&embeds, &goldens["positions"], &mut Causal);
        for (layer, state) in states.iter().enumerate().skip(1) {
            close(&format!("text/{layer}"), state);
        }
        close("logits", &model.logits(&last.squeeze_dim(0)));
    }
}
