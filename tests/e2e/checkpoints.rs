//! Checkpoints: all that a run needs is in them; bad disks: a byte that changed, no room left.

use std::{collections::BTreeSet, path::Path};

use medevo_tests::{
    history::History,
    lab::{Lab, STEPS},
    process::{coord, finish, must, processes_naming, until, wait},
    small_disk::SmallDisk,
};

/// Fails when a damaged checkpoint is trusted, passed over in silence, or costs more than the steps behind
/// the one before it (INV-5, INV-7).
#[test]
fn a_changed_byte_in_the_newest_checkpoint() {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = lab.run_dir("whole");
    let dir = lab.run_dir("run");
    let mut command = lab.launch("run", 2);
    command.env("MEDEVO_COORD_FAULT", "updating@8");
    let killed = finish(command);
    assert_eq!(killed.status.code(), None, "killed by a signal: {}", killed.said());
    let crashed = must(coord(["status", &dir.to_string_lossy()]));
    assert!(crashed.stdout.contains("medevo-coord resume"), "{}", crashed.said());
    let _ = must(coord(["report", &dir.to_string_lossy()]));

    let newest = History::read(&dir).last_checkpoint(&dir).join("model.safetensors");
    let mut bytes = std::fs::read(&newest).expect("the newest checkpoint's weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
    let said = lab.resume("run", 2).expect_code(0);
    assert!(said.stderr.contains("is not whole"), "said aloud: {}", said.said());
    assert!(said.stderr.contains("step-000006"), "by name: {}", said.said());
    let history = History::read(&dir);
    history.check(STEPS);
    assert_eq!(history.of("checkpoint_passed_over").count(), 1, "and on record");
    let back = history.of("rolled_back").last().expect("a rollback");
    assert_eq!(back["to"], 4, "the checkpoint before it is that of step 4");
    let same = history.last_weights(&dir) == History::read(&whole).last_weights(&whole);
    assert!(same, "other weights than those of an uninterrupted run: {}", said.said());
}

/// Fails when a checkpoint that did not fit is published, when what it left fills the disk for everything
/// else, or when the run cannot be taken up once there is room.
#[test]
fn no_room_for_a_checkpoint() {
    let lab = Lab::new();
    let at = lab.run_dir("disk");
    let Some(disk) = SmallDisk::mount(&at, 12) else { return };
    let dir = at.join("run");
    let said = finish(lab.launch("disk/run", 2)).expect_code(1);
    assert!(said.stderr.contains("No space left"), "{}", said.said());
    assert!(said.stderr.contains("free some space"), "what to do is named: {}", said.said());
    assert!(!said.stderr.contains("panicked"), "{}", said.said());
    let history = History::read(&dir);
    assert!(history.of("checkpoint_failed").next().is_some(), "{}", said.said());
    assert_eq!(history.of("checkpoint_published").count(), 0);
    let left = std::fs::read_dir(dir.join("checkpoints")).expect("the folder").count();
    assert_eq!(left, 0, "nothing half-written is left");
    disk.resize(200);
    let _ = lab.resume("disk/run", 2).expect_code(0);
    History::read(&dir).check(STEPS);
}

fn bytes_in(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a folder").flatten();
    files.map(|file| file.metadata().expect("a file").len()).sum()
}

/// Fails when a disk that fills up in the middle of a run stops it, when a checkpoint that did not fit is published or
/// gone back to, or when the run, once there is room, ends with other weights (INV-5, INV-7).
#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_run() {
    let lab = Lab::new();
    let _ = lab.run("whole", 2);
    let whole = lab.run_dir("whole");
    let size = bytes_in(&History::read(&whole).last_checkpoint(&whole));
    let dir = lab.run_dir("run");
    let mut command = lab.launch("run", 2);
    command.args(["--set", "checkpoint.keep=9"]).env("MEDEVO_COORD_FAULT", "updating@9");
    let mut child = command.spawn().expect("it starts");
    let at = dir.join("checkpoints");
    until("the folder of checkpoints", || at.is_dir());
    // Room for those of steps 3 and 4, and for half of one more.
    let Some(disk) = SmallDisk::mount(&at, (size * 5 / 2).div_ceil(1 << 20) as u32) else {
        child.kill().expect("killed");
        let _ = wait(child);
        return;
    };
    let killed = wait(child);
    assert_eq!(killed.status.code(), None, "the run went on to step 9: {}", killed.said());
    until("workers die with their coordinator", || processes_naming(&dir).is_empty());
    let history = History::read(&dir);
    let steps = |kind: &str| -> Vec<u64> {
        history.of(kind).filter_map(|event| event["step"].as_u64()).collect()
    };
    assert_eq!(steps("checkpoint_published"), [3, 4]);
    assert!(!steps("checkpoint_failed").is_empty(), "said at every one that did not fit");
    let said = history.of("checkpoint_failed").next().expect("an event")["error"].to_string();
    assert!(said.contains("No space left"), "{said}");
    let names =
        std::fs::read_dir(&at).expect("the folder").flatten().map(|entry| entry.file_name());
    let names: BTreeSet<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(
        names,
        ["step-000003", "step-000004"].map(String::from).into(),
        "nothing half-written"
    );

    disk.resize(400);
    let said = lab.resume("run", 2).expect_code(0);
    let history = History::read(&dir);
    history.check(STEPS);
    assert_eq!(history.of("rolled_back").last().expect("a rollback")["to"], 4, "{}", said.said());
    let same = history.last_weights(&dir) == History::read(&whole).last_weights(&whole);
    assert!(same, "other weights than those of an uninterrupted run: {}", said.said());
}

/// Fails when something that a run cannot be gone on from without is left out of its checkpoints.
#[test]
fn all_that_a_run_needs_is_in_its_checkpoint() {
    let lab = Lab::new();
    let mut command = lab.launch("run", 1);
    // The checkpoint of step 6 is published by then.
    command.env("MEDEVO_COORD_FAULT", "updating@7");
    let killed = finish(command);
    assert_eq!(killed.status.code(), None, "killed by a signal: {}", killed.said());
    let dir = lab.run_dir("run");
    let read = |path: &Path| -> serde_json::Value {
        let text = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        serde_json::from_slice(&text).expect("JSON")
    };
    let at = dir.join("checkpoints/step-000006");
    let manifest = read(&at.join("manifest.json"));
    assert_eq!(manifest["step"], 6, "schedule and cursor: the step");
    assert_eq!(manifest["position"]["stage"], 2, "cursor: the stage");
    assert_eq!(manifest["position"]["done"], 2, "schedule and cursor: the steps of the stage");
    assert_eq!(manifest["seed"], 5, "random numbers are counted from the seed");
    assert_eq!(manifest["policy"], 6, "random numbers are counted by version");
    assert_eq!(manifest["reference"], "checkpoints/step-000004", "the KL reference");
    for digest in ["config", "holding"] {
        assert_eq!(manifest[digest].as_str().map(str::len), Some(64), "{digest}");
    }
    let files = manifest["files"].as_array().expect("a list").iter();
    let files: BTreeSet<&str> = files.filter_map(|file| file["name"].as_str()).collect();
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "scorer.json",
        "config.json",
        "tokenizer.json",
    ] {
        assert!(files.contains(file), "{file} is not among {files:?}");
    }
    let optimizer = std::fs::read(at.join("optimizer.safetensors")).expect("moments");
    let header = u64::from_le_bytes(optimizer[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value =
        serde_json::from_slice(&optimizer[8..8 + header]).expect("a header");
    assert_eq!(header["__metadata__"]["steps"], "2", "the moments' own steps, for their bias");
    for moment in ["exp_avg.", "exp_avg_sq."] {
        let names = header.as_object().expect("an object").keys();
        assert!(names.into_iter().any(|name| name.starts_with(moment)), "{moment}*");
    }
    let scorer = read(&at.join("scorer.json"));
    let labels = scorer["2"]["labels"].as_object().expect("the rl stage's labels");
    assert!(!labels.is_empty(), "the last label of every question, for the flip rate");
    assert!(scorer["2"].get("seen").is_some(), "what the embedder has counted");
}
