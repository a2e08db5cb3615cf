//! Bad input through the real binary: each a clear sentence and exit code 2, and nothing is made.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use medevo_store::Embedded;

/// A folder with a complete-looking model, one labelled question with its image, and a run file.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder") };
        let model = bench.path("model");
        fs::create_dir(&model).expect("a folder");
        for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
            fs::write(model.join(name), "{}").expect("a file");
        }
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header.as_bytes());
        weights.extend([0; 4]);
        fs::write(model.join("model.safetensors"), weights).expect("a file");
        image::GrayImage::new(8, 8).save(bench.path("scan.png")).expect("an image");
        let line =
            r#"{"id": 1, "image": "scan.png", "question": "Which organ?", "answer": "liver"}"#;
        fs::write(bench.path("data.jsonl"), line).expect("a file");
        bench.run_file("");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run_file(&self, more: &str) {
        let text = format!(
            r#"
            [run]
            name = "bench"
            [model]
            path = "model"
            [data.it]
            path = "data.jsonl"
            format = "jsonl"
            [[stage]]
            kind = "evaluate"
            name = "measure"
            data = ["it"]
            {more}
            "#
        );
        fs::write(self.path("run.toml"), text).expect("a file");
    }

    fn launch(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_medevo-coord"))
            .current_dir(self.folder.path())
            .args(["launch", "run.toml", "--workers", "0"])
            .args(more)
            .output()
            .expect("the binary runs")
    }

    /// Launches, expects exit code 2 and a sentence with `words`, and that no run directory was made.
    fn refuses(&self, more: &[&str], words: &[&str]) {
        let output = self.launch(more);
        let sentence = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "`{word}` is not in: {sentence}");
        }
        assert!(!self.path("runs").exists(), "something was made");
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_makes_nothing() {
    let bench = Bench::new();
    let output = bench.launch(&["--dry-run"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("it greedy (1 questions)"), "{text}");
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_port_in_use_is_named_with_the_key_to_change() {
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    bench.refuses(&["--set", &format!("cluster.listen={address}")], &[&address, "cluster.listen"]);
}

#[test]
fn unknown_keys_are_refused() {
    let bench = Bench::new();
    bench.run_file("[clustr]\nworkers = 2");
    bench.refuses(&[], &["clustr", "cluster"]);
}

#[test]
fn a_truncated_image_and_an_incomplete_model_are_named_together() {
    let bench = Bench::new();
    let scan = bench.path("scan.png");
    let bytes = fs::read(&scan).expect("the image");
    fs::write(&scan, &bytes[..bytes.len() / 2]).expect("a file");
    fs::remove_file(bench.path("model/tokenizer.json")).expect("a file");
    bench.refuses(&[], &["scan.png", "tokenizer.json"]);
}

#[test]
fn broken_json_and_a_missing_image_are_named() {
    let bench = Bench::new();
    let lines =
        "{\"id\": 1, \"image\": \"gone.png\", \"question\": \"Which?\", \"answer\": \"a\"}\n{";
    fs::write(bench.path("data.jsonl"), lines).expect("a file");
    bench.refuses(&[], &["data.jsonl:2", "gone.png"]);
}

#[test]
fn evaluation_data_without_answers_is_refused() {
    let bench = Bench::new();
    let line = r#"{"id": 1, "image": "scan.png", "question": "Which organ?"}"#;
    fs::write(bench.path("data.jsonl"), line).expect("a file");
    bench.refuses(&[], &["measure", "needs an answer"]);
}

#[test]
fn a_second_coordinator_on_the_same_run_is_refused() {
    let bench = Bench::new();
    let run_dir = started(&bench);
    let _first = Embedded::open(&run_dir).expect("the first coordinator's store");
    let output = Command::new(env!("CARGO_BIN_EXE_medevo-coord"))
        .args(["resume", "--workers", "0"])
        .arg(&run_dir)
        .output()
        .expect("the binary runs");
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("another coordinator is already running this run"), "{sentence}");
}

#[test]
fn a_run_without_workers_fails_with_the_reason_and_can_be_resumed() {
    let bench = Bench::new();
    let run_dir = started(&bench);
    let again = bench.launch(&["--set", "cluster.starve_s=0.2"]);
    let sentence = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(2), "a run directory is never written over: {sentence}");
    assert!(sentence.contains("resume"), "{sentence}");
    let status = Command::new(env!("CARGO_BIN_EXE_medevo-coord"))
        .args(["status"])
        .arg(&run_dir)
        .output()
        .expect("the binary runs");
    assert!(status.status.success());
}

/// A run that has ended because no worker came.
fn started(bench: &Bench) -> PathBuf {
    let output = bench.launch(&["--set", "cluster.starve_s=0.2"]);
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert!(sentence.contains("the run failed"), "{sentence}");
    let run_dir = bench.path("runs/bench");
    assert!(Path::new(&run_dir.join("events.jsonl")).exists());
    run_dir
}
