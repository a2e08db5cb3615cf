//! Reading weights in several files: what it costs in memory, and what is refused.

#![allow(clippy::unwrap_used)] // a test may stop at the first surprise

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use medevo_model::{LoadError, ModelConfig, Qwen25Vl};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

const MIB: usize = 1 << 20;
/// Tells the test program to load this directory and print its memory, see [`child_loads`].
const LOAD: &str = "MEDEVO_TEST_LOAD";
/// The element type that the child loads it in.
const LOAD_AS: &str = "MEDEVO_TEST_LOAD_AS";
const INDEX: &str = "model.safetensors.index.json";

fn golden(variant: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/model").join(variant)
}

/// The configuration of a tiny model with a vocabulary of its own.
fn tiny(vocabulary: i64) -> Value {
    let text = std::fs::read_to_string(golden("flat").join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["vocab_size"] = json!(vocabulary);
    json
}

/// Writes a model of `kind` in three files with an index; the bytes of all tensors and of the largest.
fn write_sharded(dir: &Path, json: &Value, kind: Kind) -> (usize, usize) {
    let config = ModelConfig::from_json(json).unwrap();
    std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    let mut shards: BTreeMap<String, Vec<(String, Tensor)>> = BTreeMap::new();
    let (mut total, mut largest) = (0, 0);
    let mut map = serde_json::Map::new();
    for (number, (name, shape)) in config.tensors().into_iter().enumerate() {
        let file = format!("model-0000{}-of-00003.safetensors", number % 3 + 1);
        let tensor = Tensor::full(&shape, 0.01 * number as f64, (kind, Device::Cpu));
        let bytes = tensor.numel() * kind.elt_size_in_bytes();
        (total, largest) = (total + bytes, bytes.max(largest));
        map.insert(name.clone(), json!(file));
        shards.entry(file).or_default().push((name, tensor));
    }
    for (file, tensors) in shards {
        Tensor::write_safetensors(&tensors, dir.join(file)).unwrap();
    }
    std::fs::write(dir.join(INDEX), json!({"weight_map": map}).to_string()).unwrap();
    (total, largest)
}

/// A figure of /proc/self/status, bytes.
fn memory(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Not a test of its own: what the child process of the next test does. Without the variable, nothing.
#[test]
fn child_loads() {
    let Some(dir) = std::env::var_os(LOAD) else { return };
    let kind = if std::env::var(LOAD_AS).unwrap() == "bf16" { Kind::BFloat16 } else { Kind::Float };
    // The pages of libtorch's own code are not the loader's.
    Qwen25Vl::load(&golden("nested"), kind, Device::Cpu).unwrap();
    let before = memory("VmRSS:");
    let model = Qwen25Vl::load(Path::new(&dir), kind, Device::Cpu).unwrap();
    println!("growth {} {}", memory("VmHWM:").saturating_sub(before), model.parameters().len());
}

/// How much more memory a fresh process had, at most, while it loaded `dir`, bytes.
fn growth(dir: &Path, kind: &str) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_loads", "--nocapture", "--test-threads=1"])
        .env(LOAD, dir)
        .env(LOAD_AS, kind)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|l| l.split("growth ").nth(1)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whoever holds a model twice while loading needs two machines' memory for a model that fits one. Here
/// the largest tensor is 100 MiB, and neither the model nor that tensor may be there twice.
#[test]
fn loading_needs_the_model_and_a_little_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut json = tiny(20_480);
    for (key, value) in [
        ("hidden_size", json!(1280)),
        ("num_attention_heads", json!(5)),
        ("intermediate_size", json!(2560)),
        ("rope_scaling", json!({"type": "mrope", "mrope_section": [32, 48, 48]})),
    ] {
        json[key] = value;
    }
    json["vision_config"]["out_hidden_size"] = json!(1280);
    let (total, largest) = write_sharded(dir.path(), &json, Kind::Float);
    assert!(total >= 300 * MIB && largest >= 100 * MIB, "{total} {largest}");
    let slack = 24 * MIB;
    for (kind, held) in [("f32", total), ("bf16", total / 2)] {
        let grown = growth(dir.path(), kind);
        println!("{kind}: {} MiB of weights, memory grew by {}", held / MIB, grown / MIB);
        assert!(grown >= held / 2, "{kind}: {grown} bytes: the child did not load the model");
        assert!(grown <= held + slack, "{kind}: {grown} bytes for a model of {held}");
    }
}

fn load(dir: &Path) -> Result<Qwen25Vl, LoadError> {
    Qwen25Vl::load(dir, Kind::Float, Device::Cpu)
}

/// A copy of the sharded golden model.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("nested")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn shard(number: usize) -> String {
    format!("model-0000{number}-of-00002.safetensors")
}

/// Rewrites one shard.
fn change(dir: &Path, number: usize, with: impl FnOnce(&mut Vec<(String, Tensor)>)) {
    let path = dir.join(shard(number));
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    with(&mut tensors);
    Tensor::write_safetensors(&tensors, path).unwrap();
}

#[test]
fn files_that_the_index_names_and_nobody_copied_are_listed() {
    let dir = copy();
    std::fs::remove_file(dir.path().join(shard(1))).unwrap();
    std::fs::remove_file(dir.path().join(shard(2))).unwrap();
    let message = load(dir.path()).unwrap_err().to_string();
    for part in [INDEX, &shard(1), &shard(2), "copy them there"] {
        assert!(message.contains(part), "{message}");
    }
}

/// One load names all that is wrong, in whichever shard.
#[test]
fn every_fault_across_shards_is_named_at_once() {
    let dir = copy();
    let wrong = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
    let mut moved = None;
    change(dir.path(), 1, |tensors| {
        // Lost: the index still looks for it here.
        moved = Some(tensors.remove(0));
        tensors[0].1 = wrong.shallow_clone();
    });
    let (moved_name, tensor) = moved.unwrap();
    let (mut lost, mut twice) = (String::new(), String::new());
    let first = Tensor::read_safetensors(dir.path().join(shard(1))).unwrap();
    change(dir.path(), 2, |tensors| {
        lost = tensors.pop().unwrap().0;
        // In the other shard than the index says, and one that both shards hold.
        tensors.push((moved_name.clone(), tensor));
        twice = first[1].0.clone();
        tensors.push((twice.clone(), first[1].1.shallow_clone()));
        tensors.push(("model.visual.blocks.99.norm1.weight".into(), wrong));
    });
    let error = load(dir.path()).unwrap_err();
    let message = error.to_string();
    let LoadError::Tensors { missing, extra, misshapen, misplaced, .. } = error else {
        panic!("{message}")
    };
    assert_eq!(missing, [lost.as_str()]);
    assert_eq!(extra, ["model.visual.blocks.99.norm1.weight"]);
    assert_eq!(misshapen.len(), 1);
    assert_eq!(misplaced.len(), 3, "{misplaced:?}");
    let says = |part: String| assert!(message.contains(&part), "{part}: {message}");
    says(format!("{moved_name} is not in {}, where the index looks for it", shard(1)));
    says(format!("{lost} is not in {}", shard(2)));
    says(format!("{twice} in {} is also {twice} in {}", shard(1), shard(2)));
}

/// One tensor under both naming schemes: either could be the trained one.
#[test]
fn a_tensor_under_two_names_is_refused() {
    let dir = copy();
    change(dir.path(), 2, |tensors| {
        let (name, tensor) = &tensors[0];
        let flat = name.replace("model.visual.", "visual.").replace("language_model.", "");
        assert_ne!(*name, flat);
        let tensor = tensor.shallow_clone();
        tensors.push((flat, tensor));
    });
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(&error, LoadError::Tensors { misplaced, .. } if misplaced.len() == 1));
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    let dir = copy();
    for (index, part) in [
        (json!({"weight_map": {"a": "../b.safetensors"}}), "leads out of the directory"),
        (json!({"weight_map": {"a": 3}}), "names no file for a"),
        (json!({"metadata": {}}), "no weight_map"),
    ] {
        std::fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(INDEX), "{message}");
    }
}

/// What a file holds must not depend on the type it is stored in, nor on where a piece of it ends.
#[test]
fn every_stored_type_is_read_whole() {
    let json = tiny(20_000);
    let config = ModelConfig::from_json(&json).unwrap();
    let source = tempfile::tempdir().unwrap();
    let name = "model.language_model.embed_tokens.weight";
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
        write_sharded(source.path(), &json, kind);
        let shape = [config.text.vocab_size, config.text.hidden_size];
        // Whole numbers below 256 are exact in every type, and none repeats with a power of two.
        let values = Tensor::arange(shape[0] * shape[1], (Kind::Int64, Device::Cpu))
            .remainder(251)
            .view(shape);
        for number in 1..=3 {
            let path = source.path().join(format!("model-0000{number}-of-00003.safetensors"));
            let mut tensors = Tensor::read_safetensors(&path).unwrap();
            for (n, t) in &mut tensors {
                if n == name {
                    *t = values.to_kind(kind);
                }
            }
            Tensor::write_safetensors(&tensors, path).unwrap();
        }
        let model = load(source.path()).unwrap();
        let (_, read) = model.parameters().iter().find(|(n, _)| n == name).unwrap();
        assert!(read.requires_grad() && read.kind() == Kind::Float);
        assert!(read.equal(&values.to_kind(Kind::Float)), "{kind:?}");
    }
}
