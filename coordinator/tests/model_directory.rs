//! A model directory that is not complete is refused before a worker starts, with every problem named.

use std::{fs, path::Path};

use medevo_coord::preflight::check_model;

fn safetensors(path: &Path, names: &[&str]) {
    let entries: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let (from, to) = (i * 4, i * 4 + 4);
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{to}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; names.len() * 4]);
    fs::write(path, bytes).expect("a file");
}

fn complete(dir: &Path) {
    for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        fs::write(dir.join(name), "{}").expect("a file");
    }
    safetensors(&dir.join("model.safetensors"), &["a", "b"]);
}

#[test]
fn a_complete_directory_is_accepted() {
    let dir = tempfile::tempdir().expect("a folder");
    complete(dir.path());
    check_model(dir.path()).expect("nothing is wrong");
}

#[test]
fn all_problems_are_named_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let sentence = check_model(dir.path()).expect_err("an empty folder").to_string();
    for word in ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"] {
        assert!(sentence.contains(word), "{word} is not named in: {sentence}");
    }
    let sentence = check_model(&dir.path().join("none")).expect_err("no folder").to_string();
    assert!(sentence.contains("does not exist"), "{sentence}");
}

#[test]
fn truncated_weights_are_found() {
    let dir = tempfile::tempdir().expect("a folder");
    complete(dir.path());
    let file = dir.path().join("model.safetensors");
    let bytes = fs::read(&file).expect("the weights");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("a file");
    let sentence = check_model(dir.path()).expect_err("truncated weights").to_string();
    assert!(sentence.contains("truncated"), "{sentence}");
    fs::write(&file, &bytes[..4]).expect("a file");
    let sentence = check_model(dir.path()).expect_err("a stump").to_string();
    assert!(sentence.contains("first 8 bytes"), "{sentence}");
}

#[test]
fn an_index_that_names_an_absent_tensor_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    complete(dir.path());
    let file = dir.path().join("model.safetensors");
    fs::rename(&file, dir.path().join("model-00001-of-00001.safetensors")).expect("a rename");
    let map = r#"{"weight_map":{"a":"model-00001-of-00001.safetensors","lm_head.weight":"model-00001-of-00001.safetensors"}}"#;
    fs::write(dir.path().join("model.safetensors.index.json"), map).expect("a file");
    let sentence = check_model(dir.path()).expect_err("an absent tensor").to_string();
    assert!(sentence.contains("lm_head.weight"), "{sentence}");
}

/// An adapter cannot run without its base, so both are looked at.
#[test]
fn an_adapter_is_complete_with_its_base() {
    let dir = tempfile::tempdir().expect("a folder");
    let (base, adapter) = (dir.path().join("base"), dir.path().join("adapter"));
    fs::create_dir(&base).expect("a folder");
    fs::create_dir(&adapter).expect("a folder");
    let config = format!(r#"{{"base_model_name_or_path": {base:?}}}"#);
    fs::write(adapter.join("adapter_config.json"), config).expect("a file");
    let sentence = check_model(&adapter).expect_err("no tensors").to_string();
    assert!(sentence.contains("adapter_model.safetensors"), "{sentence}");
    safetensors(&adapter.join("adapter_model.safetensors"), &["a"]);
    let sentence = check_model(&adapter).expect_err("an empty base").to_string();
    assert!(sentence.contains("tokenizer.json"), "{sentence}");
    complete(&base);
    check_model(&adapter).expect("nothing is wrong");
    fs::write(adapter.join("adapter_config.json"), "{}").expect("a file");
    let sentence = check_model(&adapter).expect_err("no base").to_string();
    assert!(sentence.contains("base_model_name_or_path"), "{sentence}");
}
