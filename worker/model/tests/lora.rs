//! Holds adapters against PEFT's numbers (tests/golden/make_lora_goldens.py), and what is written against
//! what is read.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use medevo_model::{
    Adapter, Causal, Encoder, ImageProcessor, LoadError, ModelConfig, Qwen25Vl, base_directory,
};
use medevo_types::settings::LoraSettings;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Largest difference allowed, relative to the largest magnitude of the golden.
const TOLERANCE: f64 = 2e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn goldens() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(golden("lora/goldens.safetensors")).unwrap().into_iter().collect()
}

fn base(kind: Kind) -> Qwen25Vl {
    Qwen25Vl::load(&golden("model/nested"), kind, Device::Cpu).unwrap()
}

fn read(dir: &Path, model: &Qwen25Vl) -> Result<Adapter, LoadError> {
    Adapter::read(dir, &model.config, Device::Cpu)
}

fn adapted(kind: Kind) -> Qwen25Vl {
    let model = base(kind);
    model.with_adapter(read(&golden("lora/adapter"), &model).unwrap())
}

fn relative(got: &Tensor, golden: &Tensor) -> f64 {
    assert_eq!(got.size(), golden.size());
    let difference = (got.to_kind(Kind::Double) - golden.to_kind(Kind::Double)).abs().max();
    difference.double_value(&[]) / golden.abs().max().double_value(&[])
}

/// The logits that predict the answer `[answer, vocabulary]`, and the answer's ids, of a golden case.
fn predict(model: &Qwen25Vl, name: &str) -> (Tensor, Tensor) {
    let cases = std::fs::read_to_string(golden("model/cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let case = cases["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let dir = golden("model/nested");
    let (encoder, processor) = (Encoder::load(&dir).unwrap(), ImageProcessor::load(&dir).unwrap());
    let picture = |p: &Value| golden("model/images").join(p.as_str().unwrap());
    let images = case["images"].as_array().unwrap().iter().map(picture);
    let images: Vec<_> = images.map(|path| processor.open(&path).unwrap()).collect();
    let grids: Vec<_> = images.iter().map(|image| image.grid).collect();
    let prompt = encoder.prompt(case["question"].as_str().unwrap(), &grids).unwrap();
    let answer = encoder.answer(case["answer"].as_str().unwrap()).unwrap();
    let length = prompt.ids.len() + answer.len();
    let ids: Vec<i64> = prompt.ids.iter().chain(&answer).map(|id| i64::from(*id)).collect();
    let mut positions = Vec::with_capacity(3 * length);
    for axis in &prompt.positions {
        positions.extend_from_slice(axis);
        positions.extend((0..answer.len() as i64).map(|place| prompt.next_position + place));
    }
    let ids = Tensor::from_slice(&ids).unsqueeze(0);
    let positions = Tensor::from_slice(&positions).view([3, 1, length as i64]);
    let features = model.vision(&images.iter().collect::<Vec<_>>());
    let embeds = model.place_images(&model.embed(&ids), &ids, &features).unwrap();
    let hidden = model.text(&embeds, &positions, &mut Causal).squeeze_dim(0);
    let (from, count) = (prompt.ids.len() as i64 - 1, answer.len() as i64);
    (model.logits(&hidden.narrow(0, from, count)), ids.squeeze_dim(0).narrow(0, from + 1, count))
}

const CASES: [&str; 2] = ["odd", "none"];

fn logits(model: &Qwen25Vl) -> Vec<Tensor> {
    tch::no_grad(|| CASES.iter().map(|case| predict(model, case).0).collect())
}

/// A difference here means that PEFT would see another policy in the same files.
#[test]
fn an_adapter_that_peft_saved_gives_its_logits() {
    let (model, goldens) = (adapted(Kind::Float), goldens());
    let plain = logits(&base(Kind::Float));
    for ((case, got), without) in CASES.iter().zip(logits(&model)).zip(plain) {
        let golden = &goldens[&format!("{case}/logits")];
        let error = relative(&got, golden);
        assert!(error < TOLERANCE, "{case}: {error:e}");
        assert!(relative(&without, golden) > 0.1, "{case}: the adapter does next to nothing");
    }
}

/// A difference here means that another gradient than PEFT's is followed, or that the base is trained too.
#[test]
fn gradients_are_those_of_peft_and_of_the_adapter_alone() {
    let (model, goldens) = (adapted(Kind::Float), goldens());
    let mut total = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    for case in CASES {
        let (logits, answer) = predict(&model, case);
        total += logits.cross_entropy_for_logits(&answer);
    }
    total.backward();
    let golden = goldens.keys().filter(|key| key.starts_with("gradient/")).count();
    assert_eq!(model.parameters().len(), golden);
    for (name, tensor) in model.parameters() {
        assert!(tensor.requires_grad() && tensor.is_leaf() && tensor.kind() == Kind::Float);
        let error =
            relative(&tensor.grad(), &goldens[&format!("gradient/base_model.model.{name}")]);
        assert!(error < 5.0 * TOLERANCE, "{name}: {error:e}");
    }
    for (name, tensor) in model.base().parameters() {
        assert!(!tensor.requires_grad() && !tensor.grad().defined(), "{name} is frozen");
    }
}

/// The KL term is measured against the base: with the adapter off, nothing of it may be left.
#[test]
fn the_base_under_an_adapter_is_the_base() {
    let expected = logits(&base(Kind::Float));
    let model = adapted(Kind::Float);
    for (got, expected) in logits(&model.base()).iter().zip(&expected) {
        assert!(got.equal(expected));
    }
    // B is zero: a fresh adapter changes nothing.
    let settings = LoraSettings::default();
    let fresh = Adapter::draw(&model.config, &settings, false, 5, Device::Cpu).unwrap();
    for (got, expected) in logits(&model.base().with_adapter(fresh)).iter().zip(&expected) {
        assert!(got.equal(expected));
    }
}

#[test]
fn merged_weights_say_what_the_adapter_says() {
    let expected = logits(&adapted(Kind::Float));
    let merged = adapted(Kind::Float).merge();
    assert!(merged.adapter().is_none());
    assert_eq!(merged.parameters().len(), base(Kind::Float).parameters().len());
    assert!(merged.parameters().iter().all(|(_, tensor)| tensor.requires_grad()));
    for (got, expected) in logits(&merged).iter().zip(&expected) {
        let error = relative(got, expected);
        assert!(error <= 1e-5, "{error:e}");
    }
    // In bfloat16 each weight is the f32 sum, rounded once.
    let (narrow, wide) = (adapted(Kind::BFloat16).merge(), base(Kind::BFloat16));
    let adapter = adapted(Kind::Float);
    let term: HashMap<_, _> = adapter.parameters().iter().map(|(n, t)| (n.as_str(), t)).collect();
    for ((name, got), (_, weight)) in narrow.parameters().iter().zip(wide.parameters()) {
        let layer = name.strip_suffix(".weight").unwrap_or_default();
        let expected = match term.get(format!("{layer}.lora_A.weight").as_str()) {
            Some(a) => {
                let b = term[format!("{layer}.lora_B.weight").as_str()];
                (weight.to_kind(Kind::Float) + b.matmul(a) * (7.0 / 3.0)).to_kind(Kind::BFloat16)
            }
            None => weight.shallow_clone(),
        };
        assert!(got.equal(&expected), "{name}");
    }
}

/// The stored type is what a merged model is written in.
#[test]
fn weights_load_as_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("narrow");
    base(Kind::BFloat16).save(&out).unwrap();
    let kind = |dir: &Path| Qwen25Vl::load_as_stored(dir).unwrap().parameters()[0].1.kind();
    assert_eq!(kind(&out), Kind::BFloat16);
    assert_eq!(kind(&golden("model/nested")), Kind::Float);
}

#[test]
fn bf16_follows_f32() {
    let (wide, narrow) = (logits(&adapted(Kind::Float)), logits(&adapted(Kind::BFloat16)));
    assert_eq!(narrow[0].kind(), Kind::BFloat16);
    for (wide, narrow) in wide.iter().zip(&narrow) {
        let narrow = narrow.to_kind(Kind::Float);
        let error = ((&narrow - wide).norm() / wide.norm()).double_value(&[]);
        assert!(error < 0.05, "{error}");
    }
}

/// PEFT's own file comes out of reading and writing with the same names, numbers and settings.
#[test]
fn what_is_written_is_what_peft_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (golden("lora/adapter"), dir.path().join("adapter"));
    let model = adapted(Kind::Float);
    let written = model.save(&ours).unwrap();
    assert_eq!(written.len(), 2, "the adapter alone");
    let open = |dir: &Path| -> HashMap<String, Tensor> {
        let file = dir.join("adapter_model.safetensors");
        Tensor::read_safetensors(file).unwrap().into_iter().collect()
    };
    let (their_tensors, our_tensors) = (open(&theirs), open(&ours));
    assert_eq!(their_tensors.len(), our_tensors.len());
    for (name, tensor) in &their_tensors {
        assert!(tensor.equal(&our_tensors[name]), "{name}");
    }
    let config = |dir: &Path| -> Value {
        let text = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (theirs, ours) = (config(&theirs), config(&ours));
    for (key, value) in ours.as_object().unwrap() {
        if key == "base_model_name_or_path" {
            assert!(Path::new(value.as_str().unwrap()).is_absolute());
        } else {
            assert_eq!(value, &theirs[key], "{key}");
        }
    }
}

fn copy_of_adapter(change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = golden("lora/adapter");
    let file = "adapter_model.safetensors";
    std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    dir
}

/// An option passed over in silence would be another policy than the one that was trained.
#[test]
fn options_that_cannot_be_obeyed_are_refused_by_key() {
    let model = base(Kind::Float);
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("bias", json!("all")),
        ("rank_pattern", json!({"q_proj": 4})),
        ("modules_to_save", json!(["lm_head"])),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("lora_alpha", Value::Null),
    ] {
        let dir = copy_of_adapter(|config| config[key] = value.clone());
        let message = read(dir.path(), &model).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains("adapter_config.json"), "{message}");
    }
    // Which layers are meant the tensors say, so a regular expression is as good as a list.
    let dir = copy_of_adapter(|config| config["target_modules"] = json!(".*_proj|.*qkv"));
    let adapter = read(dir.path(), &model).unwrap();
    assert_eq!(adapter.settings.targets.len() * 2, goldens().len() - CASES.len());
    // Nor does a list that means more than there is get written again as it stands.
    let dir = copy_of_adapter(|config| config["target_modules"] = json!(["mlp.2", "q_proj"]));
    let adapter = read(dir.path(), &model).unwrap();
    assert_eq!(adapter.settings.targets.len() * 2, goldens().len() - CASES.len());
}

#[test]
fn tensors_without_a_place_are_named() {
    let model = base(Kind::Float);
    let dir = copy_of_adapter(|_| ());
    let path = dir.path().join("adapter_model.safetensors");
    let whole = Tensor::read_safetensors(&path).unwrap();
    let mut tensors: Vec<_> = whole
        .into_iter()
        .filter(|(name, _)| !name.contains("layers.0.mlp.up_proj.lora_A"))
        .collect();
    tensors.push(("base_model.model.lm_head.lora_A.weight".into(), Tensor::from(1.0)));
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let message = read(dir.path(), &model).unwrap_err().to_string();
    for part in ["lm_head", "layers.0.mlp.up_proj has only one"] {
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(&path, b"nonsense").unwrap();
    assert!(matches!(read(dir.path(), &model), Err(LoadError::Weights { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(dir.path(), &model), Err(LoadError::Io { .. })));
    // A model of another shape.
    let demo = golden("../../ops/demo/tiny-qwen2.5-vl");
    let other = ModelConfig::load(&demo).unwrap();
    let error = Adapter::read(&golden("lora/adapter"), &other, Device::Cpu).unwrap_err();
    assert!(matches!(error, LoadError::Adapter { .. }), "{error}");
}

#[test]
fn a_directory_says_which_model_is_under_it() {
    let base = golden("model/nested");
    assert_eq!(base_directory(&base).unwrap(), base);
    let there = copy_of_adapter(|config| config["base_model_name_or_path"] = json!(base));
    assert_eq!(base_directory(there.path()).unwrap(), base);
    let gone = copy_of_adapter(|config| config["base_model_name_or_path"] = json!("Qwen/absent"));
    let message = base_directory(gone.path()).unwrap_err().to_string();
    assert!(message.contains("Qwen/absent"), "{message}");
}

/// Every worker draws its own: the same seed has to make the same adapter.
#[test]
fn a_seed_makes_the_same_adapter_and_another_makes_another() {
    let config = base(Kind::Float).config;
    let settings = LoraSettings { rank: 8, ..LoraSettings::default() };
    let draw = |seed| Adapter::draw(&config, &settings, true, seed, Device::Cpu).unwrap();
    let model = base(Kind::Float);
    let (a, b, c) = (draw(1), draw(1), draw(2));
    let (a, b, c) = (model.with_adapter(a), model.with_adapter(b), model.with_adapter(c));
    for (((name, a), (_, b)), (_, c)) in
        a.parameters().iter().zip(b.parameters()).zip(c.parameters())
    {
        assert!(a.equal(b) && !Qwen25Vl::is_vision(name), "{name}");
        let inner = a.size()[1] as f64;
        if name.ends_with("lora_A.weight") {
            assert!(!a.equal(c), "{name}");
            // kaiming_uniform_(a = √5): uniform within ±1/√in.
            let largest = a.abs().max().double_value(&[]) * inner.sqrt();
            assert!((0.9..=1.0).contains(&largest), "{name}: {largest}");
            assert!(a.mean(Kind::Float).double_value(&[]).abs() * inner.sqrt() < 0.2, "{name}");
        } else {
            assert_eq!(a.abs().max().double_value(&[]), 0.0, "{name}");
        }
    }
}

#[test]
fn an_adapter_of_other_settings_is_not_taken_for_this_runs() {
    let model = base(Kind::Float);
    let adapter = read(&golden("lora/adapter"), &model).unwrap();
    let own = adapter.settings.clone();
    let said = |settings: &LoraSettings, freeze| adapter.expect(&model.config, settings, freeze);
    assert_eq!(said(&own, false), Ok(()));
    let wider = LoraSettings { rank: 4, ..own.clone() };
    assert!(said(&wider, false).unwrap_err().contains("rank 3"));
    let fewer = LoraSettings { targets: vec!["q_proj".into()], ..own.clone() };
    assert!(said(&fewer, false).unwrap_err().contains("leave out"));
    let mut more = own.clone();
    more.targets.push("mlp.2".into());
    assert!(said(&more, false).unwrap_err().contains("merger.mlp.2"));
    let frozen = LoraSettings::default();
    assert!(said(&LoraSettings { rank: 3, alpha: 7.0, ..frozen }, true).is_err());
}
