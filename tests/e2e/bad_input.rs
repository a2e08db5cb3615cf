//! Bad input: a clear sentence and a non-zero exit before training starts, nothing half-written.

use std::{net::TcpListener, path::Path};

use medevo_tests::{
    lab::Lab,
    process::{Finished, coord, finish, processes_naming, until},
};

/// Launches and expects a refusal whose message holds every one of `words`, before any step.
fn refused(lab: &Lab, words: &[&str]) -> Finished {
    refused_with(lab, &[], words)
}

fn refused_with(lab: &Lab, args: &[&str], words: &[&str]) -> Finished {
    let mut command = lab.launch("run", 2);
    command.args(args);
    let said = finish(command);
    assert!(matches!(said.status.code(), Some(1 | 2)), "{}", said.said());
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is named: {}", said.said());
    }
    assert!(!said.stderr.contains("panicked"), "{}", said.said());
    let dir = lab.run_dir("run");
    let events = std::fs::read_to_string(dir.join("events.jsonl")).unwrap_or_default();
    assert!(!events.contains("step_committed"), "no step was taken");
    assert_eq!(processes_naming(&dir), Vec::<String>::new(), "nothing is left running");
    said
}

/// Refused before there is even a run directory.
fn refused_early(lab: &Lab, words: &[&str]) {
    let said = refused(lab, words);
    assert_eq!(said.status.code(), Some(2), "{}", said.said());
    assert!(!lab.run_dir("run").exists(), "nothing half-written: {}", said.said());
}

fn folder_of(path: &str) -> String {
    let folder = Path::new(path).parent().and_then(Path::file_name).expect("a folder");
    folder.to_string_lossy().into_owned()
}

#[test]
fn a_missing_image() {
    let lab = Lab::new();
    let image = lab.an_image();
    std::fs::remove_file(&image).expect("removed");
    refused_early(&lab, &["test.json:", &folder_of(&image)]);
}

#[test]
fn a_truncated_jpeg() {
    let lab = Lab::new();
    let image = lab.an_image();
    let bytes = std::fs::read(&image).expect("an image");
    std::fs::write(&image, &bytes[..bytes.len() / 2]).expect("cut");
    refused_early(&lab, &["test.json:", &folder_of(&image)]);
    let target = lab.path("data/target");
    let said = finish(coord(["data", "check", &target]));
    assert!(!said.status.success(), "data check finds it too: {}", said.said());
}

#[test]
fn broken_json() {
    let lab = Lab::new();
    let path = lab.path("data/target/test.json");
    let text = std::fs::read_to_string(&path).expect("test.json");
    std::fs::write(&path, &text[..text.len() - 20]).expect("cut");
    refused_early(&lab, &["test.json:"]);
}

#[test]
fn an_unknown_key() {
    let lab = Lab::new();
    let path = lab.path("run.toml");
    let text = std::fs::read_to_string(&path).expect("run.toml");
    std::fs::write(&path, text.replace("questions = 6", "question = 6")).expect("written");
    refused_early(&lab, &["run.toml:", "question", "questions"]);
}

#[test]
fn a_model_without_a_tensor() {
    let lab = Lab::new();
    // Renames a tensor in the header, so that one is missing and one is unknown.
    let path = lab.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    let name = b"layers.1.mlp.up_proj.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).expect("the tensor's name");
    bytes[at + name.len() - 1] = b'X';
    std::fs::write(&path, bytes).expect("written");
    let _ = refused(&lab, &["layers.1.mlp.up_proj.weight", "missing"]);
}

#[test]
fn a_prompt_longer_than_the_limit() {
    let lab = Lab::new();
    let _ =
        refused_with(&lab, &["--set", "engine.max_prompt_tokens=20"], &["max_prompt_tokens", "20"]);
}

#[test]
fn a_port_in_use() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let set = format!("cluster.listen={address}");
    let said = refused_with(&lab, &["--set", &set], &[&address, "cluster.listen"]);
    assert!(!lab.run_dir("run").exists(), "nothing half-written: {}", said.said());
}

#[test]
fn a_second_coordinator_on_the_same_run() {
    let lab = Lab::new();
    let mut command = lab.launch("run", 1);
    command.args(["--set", "stage.adapt.steps=100000"]);
    let mut first = command.spawn().expect("the first starts");
    let events = lab.run_dir("run").join("events.jsonl");
    until("the first run is under way", || {
        std::fs::read_to_string(&events).is_ok_and(|t| t.contains("step_committed"))
    });
    let second = lab.resume("run", 1);
    first.kill().expect("killed");
    first.wait().expect("ended");
    assert!(matches!(second.status.code(), Some(1 | 2)), "{}", second.said());
    assert!(second.stderr.contains("another coordinator"), "{}", second.said());
    until("workers die with their coordinator", || {
        processes_naming(&lab.run_dir("run")).is_empty()
    });
}
