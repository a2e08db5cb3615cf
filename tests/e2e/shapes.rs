//! Data of every shape, in a whole run: no image, one, two, odd sizes; bf16; a frozen vision tower.

use std::{collections::BTreeMap, path::Path};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS, checkout},
    process::finish,
};
use serde_json::{Value, json};

/// Replaces the lab's target by a JSONL set of questions with `images` each: odd, wide, tall, large, grey,
/// with alpha, turned.
fn jsonl_target(lab: &Lab, images: &[&[&str]]) {
    let folder = checkout().join("tests/golden/model/images");
    let lines: String = images
        .iter()
        .enumerate()
        .map(|(number, names)| {
            let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
            let question = format!("is there a lesion in image {number} ?");
            let line = json!({
                "id": format!("q{number}"), "image": paths, "question": question, "answer": "yes"
            });
            format!("{line}\n")
        })
        .collect();
    std::fs::write(lab.path("target.jsonl"), lines).expect("target.jsonl is written");
    let path = lab.path("run.toml");
    let text = std::fs::read_to_string(&path).expect("run.toml");
    let from = "path = \"data/target\"\nformat = \"slake\"";
    assert!(text.contains(from), "the lab's run file has changed");
    let to = "path = \"target.jsonl\"\nformat = \"jsonl\"";
    std::fs::write(&path, text.replace(from, to)).expect("run.toml is written");
}

/// Runs with `set` and two workers; every step must have been taken, each with finite figures.
fn run(lab: &Lab, set: &[&str]) {
    let mut command = lab.launch("run", 2);
    for pair in set {
        command.args(["--set", pair]);
    }
    let said = finish(command).expect_code(0);
    let history = History::read(&lab.run_dir("run"));
    history.check(STEPS);
    let losses = history.figure("loss");
    assert!(losses.len() >= 5 && losses.values().all(|l| l.is_finite()), "{}", said.said());
}

/// For each question of step 5, how many candidates were drawn.
fn drawn(run_dir: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(run_dir.join("samples.jsonl")).expect("samples.jsonl");
    text.lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("a JSON object"))
        .filter(|r| r["step"] == 5)
        .map(|r| {
            let list = r["candidates"].as_array().expect("a list");
            let count = list.iter().map(|c| c["count"].as_u64().expect("a number")).sum();
            (r["sample"].to_string(), count)
        })
        .collect()
}

#[test]
fn none_one_and_two_images_of_any_size() {
    let lab = Lab::new();
    jsonl_target(
        &lab,
        &[
            &[],
            &["odd.png"],
            &["large.png", "tiny.png"],
            &["wide.png"],
            &["tall.png", "alpha.png"],
            &["cmyk.jpg", "turned.jpg"],
        ],
    );
    run(&lab, &[]);
    let drawn = drawn(&lab.run_dir("run"));
    assert_eq!(drawn.len(), 6, "every question has a group: {drawn:?}");
    assert!(drawn.values().all(|n| *n == 6), "every candidate is there: {drawn:?}");
}

#[test]
fn questions_without_any_image() {
    let lab = Lab::new();
    jsonl_target(&lab, &[&[], &[], &[], &[], &[], &[]]);
    run(&lab, &[]);
}

#[test]
fn half_precision_weights() {
    let lab = Lab::new();
    run(&lab, &["model.dtype=bf16"]);
    assert!(optimizer_keeps_full_precision(&lab), "the master weights are f32");
}

#[test]
fn a_frozen_vision_tower_stays_as_it_was() {
    let lab = Lab::new();
    run(&lab, &["model.freeze_vision=true"]);
    let last = lab.run_dir("run").join(format!("checkpoints/step-{STEPS:06}/model.safetensors"));
    let before = vision(Path::new(&lab.path("model/model.safetensors")));
    let after = vision(&last);
    assert!(!before.is_empty(), "there is a vision tower");
    assert!(before == after, "a frozen tensor has moved");
}

/// The header and the data of a safetensors file.
fn tensors(path: &Path) -> (serde_json::Map<String, Value>, Vec<u8>) {
    let bytes = std::fs::read(path).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).expect("a JSON header");
    (header, bytes[8 + length..].to_vec())
}

/// The vision tower's tensors by name from `visual` on, as bytes.
fn vision(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (header, data) = tensors(path);
    let place = |v: &Value, end: usize| v["data_offsets"][end].as_u64().expect("a place") as usize;
    header
        .iter()
        .filter_map(|(name, v)| Some((&name[name.find("visual")?..], v)))
        .map(|(name, v)| (name.to_owned(), data[place(v, 0)..place(v, 1)].to_vec()))
        .collect()
}

fn optimizer_keeps_full_precision(lab: &Lab) -> bool {
    let dir = lab.run_dir("run").join(format!("checkpoints/step-{STEPS:06}"));
    let dtypes = |name: &str| -> Vec<String> {
        let (header, _) = tensors(&dir.join(name));
        header.values().filter_map(|v| Some(v["dtype"].as_str()?.to_owned())).collect()
    };
    dtypes("model.safetensors").iter().all(|d| d == "BF16")
        && dtypes("optimizer.safetensors").iter().any(|d| d == "F32")
}
