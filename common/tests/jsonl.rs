//! The generic format: what it takes, and how it refuses.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fs, path::PathBuf};

use medevo_common::{
    config::{DataFormat, DataSection},
    dataset::{DataProblems, Dataset, load},
};
use proptest::prelude::*;
use tempfile::TempDir;

const GREY: &[u8] = include_bytes!("data/grey.jpg");

fn read(lines: &str) -> (TempDir, Result<Dataset, DataProblems>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("scans")).unwrap();
    fs::write(folder.path().join("scans/a.jpg"), GREY).unwrap();
    fs::write(folder.path().join("scans/b.jpg"), GREY).unwrap();
    let file = folder.path().join("data.jsonl");
    fs::write(&file, lines).unwrap();
    let section = DataSection {
        path: file,
        format: DataFormat::Jsonl,
        split: "test".into(),
        language: "en".into(),
        limit: 0,
    };
    let data = load("notes", &section);
    (folder, data)
}

fn problems(lines: &str) -> Vec<(usize, String)> {
    let problems = read(lines).1.unwrap_err().problems;
    problems.into_iter().map(|problem| (problem.line, problem.what)).collect()
}

#[test]
fn every_field_is_read() {
    let (folder, data) = read(concat!(
        "\u{feff}{\"id\": 1, \"image\": \"scans/a.jpg\", \"question\": \"What is <image>?\", \"answer\": 3}\n",
        "\n",
        "{\"id\": \"b\", \"image\": [\"scans/a.jpg\", \"scans/b.jpg\"], \"question\": \"Same?\", \"answer\": \"Yes.\", ",
        "\"tags\": {\"organ\": \"lung\", \"site\": 2}}\r\n",
        "{\"id\": \"c\", \"image\": null, \"question\": \"Why?\", \"answer_type\": \"closed\"}\n",
    ));
    let data = data.unwrap();
    let images = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| folder.path().join("scans").join(name)).collect()
    };
    let [first, second, third] = data.questions.as_slice() else { panic!("{data:?}") };
    assert_eq!((first.id.0.as_str(), first.text.as_str()), ("1", "What is <image>?"));
    assert_eq!(first.images, images(&["a.jpg"]));
    assert_eq!(second.images, images(&["a.jpg", "b.jpg"]));
    assert_eq!(second.tags, [("organ".into(), "lung".into()), ("site".into(), "2".into())]);
    assert!(third.images.is_empty());
    assert_eq!([first.closed, second.closed, third.closed], [false, true, true]);
    let answers: Vec<_> =
        data.references.iter().map(|r| r.as_ref().map(|r| r.reveal().to_owned())).collect();
    assert_eq!(answers, [Some("3".into()), Some("Yes.".into()), None]);
}

#[test]
fn every_problem_is_named_at_once_with_its_line() {
    let found = problems(concat!(
        "{\"id\": 1, \"image\": \"scans/a.jpg\", \"question\": \"ok\"}\n",
        "{\"id\": 1, \"image\": \"scans/a.jpg\", \"question\": \"again\"}\n",
        "{\"id\": 2, \"image\": \"scans/missing.jpg\", \"question\": \"x\"}\n",
        "{\"id\": 3, \"image\": 5, \"question\": \"\", \"tags\": []}\n",
        "{\"id\": 4, \"question\": \"x\"}\n",
        "{\"id\": 5,\n",
        "[]\n",
        "{\"id\": 1.5, \"image\": null, \"question\": \"x\"}\n",
        "{\"id\": 6, \"image\": \"scans/b.dcm\", \"question\": \"x\"}\n",
        "{\"id\": 7, \"image\": \"scans/missing.jpg\", \"question\": \"x\"}\n",
    ));
    let expected = [
        (2, "id 1 was given in line 1 already"),
        (3, "no such file (1 more question uses it)"),
        (4, "image is a number"),
        (4, "question is empty"),
        (4, "tags is a list"),
        (5, "has no image"),
        (6, "broken JSON"),
        (7, "the line is a list"),
        (8, "id is a number: it must be a string or a whole number"),
        (9, "no such file"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, what), (expected_line, expected)) in found.iter().zip(expected) {
        assert_eq!(*line, expected_line, "{what}");
        assert!(what.contains(expected), "{what} / {expected}");
    }
}

#[test]
fn unreadable_files_are_refused_with_their_reason() {
    assert!(problems("\n\n")[0].1.contains("holds no questions"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.jsonl");
    fs::write(&file, b"{}\n{\"question\": \"\xe9\"}\n").unwrap();
    let section = DataSection {
        path: file,
        format: DataFormat::Jsonl,
        split: String::new(),
        language: String::new(),
        limit: 0,
    };
    let problems = load("x", &section).unwrap_err().problems;
    assert_eq!(problems[0].line, 2);
    assert!(problems[0].what.contains("UTF-8"));
    let section = DataSection { path: folder.path().to_owned(), ..section };
    assert!(load("x", &section).unwrap_err().to_string().contains("is a folder"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_makes_the_reader_panic(lines in prop::collection::vec("[\\[\\]{}:,\"a0 \n]{0,20}", 0..6)) {
        let _ = read(&lines.join("\n"));
    }
}
