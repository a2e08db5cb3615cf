//! What a run that was interrupted must not leave: processes, locks, half-written files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The variable by which processes are told to be of one launch; children inherit it.
pub const MARK: &str = "MEDEVO_TEST_LAUNCH";

/// Live processes whose environment holds this [`MARK`]: all that a launch started, whoever their parent is now.
#[must_use]
pub fn processes_marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let entries = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let marked = entries.filter(|path| {
        // A zombie has no environment any more; another user's cannot be read and is not ours.
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    });
    let line = |path: PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        format!("{}: {}", path.display(), String::from_utf8_lossy(&line).replace('\0', " "))
    };
    marked.map(line).collect()
}

/// Whether nobody holds the lock of the run's store.
///
/// # Panics
/// When the command `flock` is not there.
#[must_use]
pub fn unlocked(run_dir: &Path) -> bool {
    let store = run_dir.join("store.redb");
    !store.exists()
        || Command::new("flock")
            .args(["--nonblock", &store.to_string_lossy(), "true"])
            .status()
            .expect("flock (util-linux)")
            .success()
}

/// Files that were begun and not ended: temporary ones, JSON that does not parse, checkpoints without a manifest.
#[must_use]
pub fn half_written(run_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![run_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("step-") && !folder.join("manifest.json").is_file() {
            found.push(format!("{}: a checkpoint without a manifest", folder.display()));
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(what) = wrong(&path) {
                found.push(format!("{}: {what}", path.display()));
            }
        }
    }
    found
}

fn wrong(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy().into_owned();
    if name.ends_with(".partial") || name.contains(".tmp") {
        return Some("a temporary file".to_owned());
    }
    let text = || fs::read_to_string(file).unwrap_or_default();
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).err();
    match name.rsplit_once('.')?.1 {
        "json" => json(&text()).map(|error| error.to_string()),
        "jsonl" => {
            let text = text();
            let torn = !text.is_empty() && !text.ends_with('\n');
            let broken = text.lines().find_map(json).map(|error| error.to_string());
            broken.or(torn.then(|| "its last line is torn".to_owned()))
        }
        _ => None,
    }
}
