//! SLAKE as it is published, with everything that is odd about it, and all that can be wrong at once.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fs, path::Path};

use medevo_common::{
    config::{DataFormat, DataSection},
    dataset::{Dataset, load, load_checked},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const GREY: &[u8] = include_bytes!("data/grey.jpg");

fn section(path: &Path, split: &str, language: &str) -> DataSection {
    DataSection {
        path: path.to_owned(),
        format: DataFormat::Slake,
        split: split.into(),
        language: language.into(),
        limit: 0,
    }
}

/// A folder with images xmlab1 and xmlab2 and these records as `file`.
fn folder(file: &str, records: &[Value]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["xmlab1", "xmlab2"] {
        let image = folder.path().join("imgs").join(name);
        fs::create_dir_all(&image).unwrap();
        fs::write(image.join("source.jpg"), GREY).unwrap();
    }
    fs::write(folder.path().join(file), serde_json::to_string_pretty(records).unwrap()).unwrap();
    folder
}

fn record(qid: Value, answer: Value, answer_type: &str, language: &str) -> Value {
    json!({
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is this?",
        "answer": answer, "q_lang": language, "location": "Abdomen", "modality": "MRI",
        "answer_type": answer_type, "base_type": "vqa", "content_type": "Modality",
        "triple": ["vhead", "_", "MRI"], "qid": qid,
    })
}

fn answers(data: &Dataset) -> Vec<&str> {
    data.references.iter().map(|reference| reference.as_ref().unwrap().reveal()).collect()
}

#[test]
fn published_oddities_are_read() {
    let folder = folder(
        "test.json",
        &[
            record(json!(7), json!("MRI"), "OPEN", "en"),
            record(json!(8), json!("核磁共振"), "OPEN", "zh"),
            record(json!("9"), json!(2), " closed ", "en"),
            record(json!(10), json!("Left"), "Closed", "EN"),
            record(json!(11), json!(1.5), "open", "en"),
        ],
    );
    let data = load_checked("target", &section(folder.path(), "test", "en")).unwrap();
    let ids: Vec<_> = data.questions.iter().map(|question| question.id.0.as_str()).collect();
    assert_eq!(ids, ["test/7", "test/9", "test/10", "test/11"]);
    assert_eq!(answers(&data), ["MRI", "2", "Left", "1.5"]);
    let closed: Vec<_> = data.questions.iter().map(|question| question.closed).collect();
    assert_eq!(closed, [false, true, true, false]);
    let first = &data.questions[0];
    assert_eq!(first.images, [folder.path().join("imgs/xmlab1/source.jpg")]);
    assert!(first.tags.contains(&("location".into(), "Abdomen".into())));
    assert_eq!(load("all", &section(folder.path(), "test", "")).unwrap().questions.len(), 5);
}

#[test]
fn validation_is_found_under_both_names() {
    for file in ["validation.json", "validate.json"] {
        let folder = folder(file, &[record(json!(1), json!("MRI"), "OPEN", "en")]);
        for split in ["validation", "validate"] {
            assert_eq!(load("v", &section(folder.path(), split, "en")).unwrap().questions.len(), 1);
        }
    }
}

#[test]
fn limit_keeps_the_first_of_the_language() {
    let records: Vec<_> = (0..9)
        .map(|i| record(json!(i), json!("MRI"), "OPEN", if i % 2 == 0 { "en" } else { "zh" }))
        .collect();
    let folder = folder("test.json", &records);
    let section = DataSection { limit: 2, ..section(folder.path(), "test", "en") };
    let data = load("few", &section).unwrap();
    assert_eq!(
        data.questions.iter().map(|q| q.id.0.as_str()).collect::<Vec<_>>(),
        ["test/0", "test/2"]
    );
}

/// INV-9: nothing that goes with a question names its answer.
#[test]
fn inv9_questions_carry_no_answer() {
    let folder = folder("test.json", &[record(json!(1), json!("secret-finding"), "OPEN", "en")]);
    let data = load("target", &section(folder.path(), "test", "en")).unwrap();
    let sent = serde_json::to_string(&data.questions).unwrap();
    assert!(!sent.contains("secret-finding"));
    assert!(!sent.contains("triple") && !sent.contains("vhead"), "a triple can name the answer");
    assert!(!format!("{data:?}").contains("secret-finding"), "nor does a log of the data set");
}

#[test]
fn every_problem_is_named_at_once_with_its_line() {
    let mut records = vec![
        record(json!(1), json!("MRI"), "OPEN", "en"),
        record(json!(1), json!("MRI"), "OPEN", "en"),
        record(json!(3), json!("MRI"), "OPEN", "en"),
        record(json!(4), json!("MRI"), "sometimes", "en"),
        record(json!(5), json!(["MRI"]), "OPEN", "en"),
        record(json!(6), json!("MRI"), "OPEN", "en"),
        record(json!(null), json!("MRI"), "OPEN", "en"),
        json!("no record"),
    ];
    records[2]["question"] = json!("  ");
    records[5]["img_name"] = json!("xmlab404/source.jpg");
    let folder = folder("test.json", &records);
    // A record takes 18 lines, and the fifth, whose answer is a list, two more.
    let line = |record: usize| 2 + 18 * record + if record > 4 { 2 } else { 0 };
    let problems = load("target", &section(folder.path(), "test", "en")).unwrap_err();
    let found: Vec<_> = problems.problems.iter().map(|p| (p.line, p.what.as_str())).collect();
    let expected = [
        (line(1), "id test/1 was given in line 2 already"),
        (line(2), "qid 3: question is empty"),
        (line(3), "qid 4: answer_type is neither OPEN nor CLOSED"),
        (line(4), "qid 5: answer is a list: it must be a string or a number"),
        (line(5), "no such file"),
        (line(6), "qid is null: it must be a string or a whole number"),
        (line(7), "the record is a string: it must be an object"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.0, expected.0, "{found:?}");
        assert!(found.1.contains(expected.1), "{found:?} / {expected:?}");
    }
    let shown = problems.to_string();
    assert!(shown.starts_with("data set target: 7 problems"), "{shown}");
    assert!(shown.contains(&format!("test.json:{}: qid 3: question is empty", line(2))), "{shown}");
    assert!(!shown.contains("MRI"), "no answer is shown: {shown}");
}

#[test]
fn broken_json_names_its_line_and_keeps_the_rest_readable() {
    let folder = folder("test.json", &[]);
    let file = folder.path().join("test.json");
    let good = serde_json::to_string(&record(json!(1), json!("MRI"), "OPEN", "en")).unwrap();
    fs::write(
        &file,
        format!("[\n{good},\n{{\"qid\": 2,\n \"question\" \"x\"}},\n{{\"qid\": 3}}\n]"),
    )
    .unwrap();
    let problems = load("target", &section(folder.path(), "test", "en")).unwrap_err().problems;
    assert_eq!(problems[0].line, 4, "{problems:?}");
    assert!(problems[0].what.starts_with("broken JSON"), "{problems:?}");
    assert!(
        problems.iter().any(|p| p.line == 5 && p.what.contains("has no question")),
        "{problems:?}"
    );

    fs::write(&file, format!("[\n{good},\n{{\"qid\": 2, \"que")).unwrap();
    let problems = load("target", &section(folder.path(), "test", "en")).unwrap_err().problems;
    assert_eq!((problems.len(), problems[0].line), (1, 3), "{problems:?}");
    assert!(problems[0].what.contains("truncated"), "{problems:?}");
}

#[test]
fn what_is_missing_is_named_with_what_is_there() {
    let folder = folder("test.json", &[record(json!(1), json!("MRI"), "OPEN", "zh")]);
    let say = |section: &DataSection| load("x", section).unwrap_err().to_string();
    assert!(
        say(&section(folder.path(), "train", "en")).contains("has no split train; it has test")
    );
    assert!(
        say(&section(folder.path(), "test", "en"))
            .contains("no questions in language en; it has zh (1)")
    );
    assert!(say(&section(&folder.path().join("nowhere"), "test", "en")).contains("no such folder"));
    assert!(say(&section(&folder.path().join("test.json"), "test", "en")).contains("is a file"));
}

#[test]
fn long_lists_of_problems_are_cut_when_shown() {
    let records: Vec<_> = (0..60).map(|i| record(json!(i), json!("MRI"), "?", "en")).collect();
    let folder = folder("test.json", &records);
    let problems = load("x", &section(folder.path(), "test", "en")).unwrap_err();
    assert_eq!(problems.problems.len(), 60);
    assert_eq!(problems.to_string().lines().count(), 52);
    assert!(problems.to_string().ends_with("and 10 more"));
}
