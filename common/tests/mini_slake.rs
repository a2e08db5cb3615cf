//! The generated data set: the same files for the same options, SLAKE's layout, the promised grammar.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{collections::BTreeSet, fs, path::Path};

use medevo_common::mini_slake::{MiniSlake, corpus, generate};
use serde_json::Value;

fn small() -> MiniSlake {
    MiniSlake {
        seed: 5,
        source_images: 40,
        target_images: 12,
        heldout_images: 6,
        questions_per_image: 4,
    }
}

fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap()
}

const FILES: [&str; 4] =
    ["source/train.json", "source-styled/train.json", "target/test.json", "heldout/test.json"];

#[test]
fn same_options_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    let summary = generate(&left, &small()).unwrap();
    generate(&right, &small()).unwrap();
    for file in FILES.into_iter().chain(["source/imgs/xmlab39/source.jpg"]) {
        assert_eq!(
            fs::read(left.join(file)).unwrap(),
            fs::read(right.join(file)).unwrap(),
            "{file}"
        );
    }
    let counts: Vec<_> = summary.sets.iter().map(|set| (set.images, set.questions)).collect();
    assert_eq!(counts, [(40, 320), (40, 320), (12, 48), (6, 24)]);
}

#[test]
fn another_seed_gives_other_scans_and_held_out_differs_from_target() {
    let folder = tempfile::tempdir().unwrap();
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    generate(&left, &small()).unwrap();
    generate(&right, &MiniSlake { seed: 6, ..small() }).unwrap();
    let scan =
        |root: &Path, set: &str| fs::read(root.join(set).join("imgs/xmlab0/source.jpg")).unwrap();
    assert_ne!(scan(&left, "target"), scan(&right, "target"));
    assert_ne!(scan(&left, "target"), scan(&left, "heldout"));
}

#[test]
fn layout_is_slakes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    generate(&out, &small()).unwrap();
    for file in FILES {
        let set = out.join(file).parent().unwrap().to_owned();
        let mut ids = BTreeSet::new();
        for record in records(&out.join(file)) {
            let fields: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(
                fields,
                [
                    "img_id",
                    "img_name",
                    "question",
                    "answer",
                    "q_lang",
                    "location",
                    "modality",
                    "answer_type",
                    "base_type",
                    "content_type",
                    "triple",
                    "qid"
                ]
            );
            let image = image::open(set.join("imgs").join(field(&record, "img_name"))).unwrap();
            assert_eq!((image.width(), image.height()), (84, 84));
            assert!(ids.insert(record["qid"].as_u64().unwrap()));
        }
    }
    let link = fs::read_link(out.join("source-styled/imgs")).unwrap();
    assert!(link.is_relative(), "the data set can be moved as a whole");
}

#[test]
fn references_are_canonical_where_accuracy_is_measured_and_styled_where_trained() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    generate(&out, &MiniSlake { source_images: 400, ..small() }).unwrap();
    let canonical = |file: &str| {
        let open: Vec<_> = records(&out.join(file))
            .into_iter()
            .filter(|record| field(record, "answer_type") == "OPEN")
            .collect();
        let short = open.iter().filter(|record| {
            let answer = field(record, "answer");
            !["scan", "image", "this", "region", "it ", "in ", "lesion", "there"]
                .iter()
                .any(|word| answer.contains(word))
        });
        short.count() as f64 / open.len() as f64
    };
    assert_eq!(canonical("target/test.json"), 1.0);
    assert_eq!(canonical("heldout/test.json"), 1.0);
    assert!((canonical("source/train.json") - 0.85).abs() < 0.03);
    assert!((canonical("source-styled/train.json") - 0.34).abs() < 0.03);
}

#[test]
fn corpus_holds_every_text() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    generate(&out, &MiniSlake { source_images: 300, target_images: 200, ..small() }).unwrap();
    let corpus: BTreeSet<_> = corpus().into_iter().collect();
    let mut met = BTreeSet::new();
    for record in FILES.iter().flat_map(|file| records(&out.join(file))) {
        for name in ["question", "answer"] {
            let text = field(&record, name);
            assert!(corpus.contains(text), "{text}");
            met.insert(text.to_owned());
        }
    }
    let unmet: Vec<_> = corpus.difference(&met).collect();
    assert!(unmet.is_empty(), "{unmet:?}");
}

#[test]
fn same_options_again_write_nothing_and_others_replace() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    assert!(!generate(&out, &small()).unwrap().reused);
    let written = fs::metadata(out.join("target/test.json")).unwrap().modified().unwrap();
    let again = generate(&out, &small()).unwrap();
    assert!(again.reused);
    assert_eq!(fs::metadata(out.join("target/test.json")).unwrap().modified().unwrap(), written);
    let other = generate(&out, &MiniSlake { target_images: 3, ..small() }).unwrap();
    assert!(!other.reused);
    assert_eq!(records(&out.join("target/test.json")).len(), 12);
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["data"], "no half-written folder stays behind");
}

#[test]
fn foreign_folder_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "years of work").unwrap();
    let error = generate(&out, &small()).unwrap_err().to_string();
    assert!(error.contains("was not made by the mini-SLAKE generator"), "{error}");
    assert_eq!(fs::read_to_string(out.join("thesis.txt")).unwrap(), "years of work");
    fs::remove_file(out.join("thesis.txt")).unwrap();
    generate(&out, &small()).unwrap();
}

#[test]
fn impossible_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for questions_per_image in [0, 6] {
        let options = MiniSlake { questions_per_image, ..small() };
        let error = generate(&folder.path().join("data"), &options).unwrap_err().to_string();
        assert!(error.contains("must be 1 to 5"), "{error}");
    }
}
