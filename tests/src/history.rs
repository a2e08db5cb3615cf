//! `events.jsonl` of a run, and the invariants that can be read off it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

/// The events of a run, in order.
pub struct History(pub Vec<Value>);

impl History {
    /// Reads `events.jsonl`.
    ///
    /// # Panics
    /// When it is missing or a line of it is no JSON object.
    #[must_use]
    pub fn read(run_dir: &Path) -> Self {
        let path = run_dir.join("events.jsonl");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        Self(
            text.lines()
                .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{path:?}: {e}: {l}")))
                .collect(),
        )
    }

    /// The events of a run that is under way: none before there is a file, none of a line that is being
    /// written.
    ///
    /// # Panics
    /// When a whole line is no JSON object.
    #[must_use]
    pub fn read_so_far(run_dir: &Path) -> Self {
        let text = std::fs::read_to_string(run_dir.join("events.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Self(whole.lines().map(|l| serde_json::from_str(l).expect("a JSON object")).collect())
    }

    /// The events of one kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |e| e["event"] == kind)
    }

    /// Committed steps that stand in the end, by number: what a rollback voided is gone.
    ///
    /// # Panics
    /// When a step is committed twice (INV-1).
    #[must_use]
    pub fn committed(&self) -> BTreeMap<u64, &Value> {
        let mut steps = BTreeMap::new();
        for event in &self.0 {
            if event["event"] == "rolled_back" {
                let to = event["to"].as_u64().expect("a rollback names a step");
                steps.retain(|step, _| *step <= to);
            }
            if event["event"] == "step_committed" {
                let step = event["step"].as_u64().expect("a commit names its step");
                let before = steps.insert(step, event);
                assert!(before.is_none(), "INV-1: step {step} was committed twice");
            }
        }
        steps
    }

    /// Checks what must hold of any finished run.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self, steps: u64) {
        assert_eq!(self.check_invariants() as u64, steps, "every step is committed");
        let last = self.0.last().expect("a run has events");
        let over = self.of("finished").last().unwrap_or(last);
        assert!(over.to_string().to_lowercase().contains("done"), "the run is done: {over}");
    }

    /// Checks what must hold of any run. Returns how many steps are committed.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn check_invariants(&self) -> usize {
        let committed: Vec<u64> = self.committed().into_keys().collect();
        let all: Vec<u64> = (1..=committed.len() as u64).collect();
        assert_eq!(committed, all, "steps are committed one after the other");
        let mut last = 0;
        for opened in self.of("generation_opened") {
            let generation = opened["generation"].as_u64().expect("a number");
            assert!(generation > last, "INV-3: generation {generation} after {last}");
            last = generation;
        }
        committed.len()
    }

    /// Checks that every rank came to the same weights at the end: they were compared after the last commit.
    ///
    /// # Panics
    /// When they were not.
    pub fn check_digests(&self) {
        let last = self.of("step_committed").last().expect("a committed step");
        let agreed = self.of("digests_agree").last().expect("digests were compared");
        assert!(
            agreed["policy"].as_u64() >= last["policy"].as_u64(),
            "the weights of version {} were compared by all ranks; the last are {agreed}",
            last["policy"]
        );
    }

    /// Committed steps that were rolled back.
    #[must_use]
    pub fn steps_redone(&self) -> u64 {
        let number = |event: &Value, key: &str| event[key].as_u64().expect("a step");
        self.of("rolled_back").map(|event| number(event, "from") - number(event, "to")).sum()
    }

    /// Whether `worker` is out of the roster, for the last time that it was heard of.
    #[must_use]
    pub fn is_lost(&self, worker: &str) -> bool {
        let told = |event: &&Value| {
            event["worker"] == worker
                && (event["event"] == "worker_lost" || event["event"] == "worker_joined")
        };
        self.0.iter().rfind(told).is_some_and(|event| event["event"] == "worker_lost")
    }

    /// The workers of the last generation.
    #[must_use]
    pub fn roster(&self) -> Vec<&str> {
        let last = self.of("generation_opened").last();
        let workers = last.and_then(|event| event["workers"].as_array());
        workers.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The moment of the first commit after `moment`.
    #[must_use]
    pub fn next_commit(&self, moment: SystemTime) -> Option<SystemTime> {
        // Events are stamped in whole milliseconds.
        let moment = moment - Duration::from_millis(1);
        self.of("step_committed").map(time).find(|at| *at >= moment)
    }

    /// The directory of the checkpoint that was published last. A try that was made again has a name of its
    /// own (step-000010-101), so the event tells where it lies.
    ///
    /// # Panics
    /// When none was published.
    #[must_use]
    pub fn last_checkpoint(&self, run_dir: &Path) -> PathBuf {
        let event = self.of("checkpoint_published").last().expect("a published checkpoint");
        let dir = Path::new(event["dir"].as_str().expect("it names its directory"));
        run_dir.join("checkpoints").join(dir.file_name().expect("a name"))
    }

    /// The last checkpoint's weights.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn last_weights(&self, run_dir: &Path) -> Vec<u8> {
        let path = self.last_checkpoint(run_dir).join("model.safetensors");
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))
    }

    /// The last checkpoint's safetensors files, weights and optimizer state, by name.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn last_state(&self, run_dir: &Path) -> State {
        let dir = self.last_checkpoint(run_dir);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.ends_with(".safetensors"))
            .map(|name| (name.clone(), Tensors::read(&dir.join(&name))))
            .collect()
    }

    /// A figure of every committed step, by step.
    #[must_use]
    pub fn figure(&self, name: &str) -> BTreeMap<u64, f64> {
        self.committed()
            .into_iter()
            .filter_map(|(step, e)| Some((step, e["figures"][name].as_f64()?)))
            .collect()
    }
}

/// Weights and optimizer state by file.
pub type State = BTreeMap<String, Tensors>;

/// A safetensors file. Two are equal when names, shapes, metadata and every bit of the numbers are; the order in
/// which the header lists its metadata is chance.
#[derive(PartialEq)]
pub struct Tensors {
    header: Value,
    numbers: Vec<u8>,
}

impl Tensors {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let (length, rest) = bytes.split_first_chunk().expect("a header's length");
        let (header, numbers) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header = serde_json::from_slice(header).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        Self { header, numbers: numbers.to_vec() }
    }
}

/// When an event was written ("2026-11-27T15:40:18.364Z").
///
/// # Panics
/// When it has no such time.
#[must_use]
pub fn time(event: &Value) -> SystemTime {
    let text = event["time"].as_str().expect("an event has a time");
    let numbers: Vec<u64> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let [year, month, day, hour, minute, second, ms] = numbers[..] else {
        panic!("{text} is no time");
    };
    // Days since 1970 of a date, counted from March so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + ms)
}

/// Candidates of scored groups that were drawn once more, because the run lost what it had: those of every
/// (step, question) that `samples.jsonl` names again, unless the run says that it used them again as they were
/// (`rollout_kept`).
///
/// # Panics
/// When a line is no JSON object.
#[must_use]
pub fn candidates_lost(run_dir: &Path) -> u64 {
    let text = std::fs::read_to_string(run_dir.join("samples.jsonl")).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut again: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let group: Value = serde_json::from_str(line).expect("a JSON object");
        let step = group["step"].as_u64().expect("a step");
        if !seen.insert((step, group["sample"].to_string())) {
            let answers = group["candidates"].as_array().expect("a list");
            let count = answers.iter().filter_map(|answer| answer["count"].as_u64()).sum();
            again.entry(step).or_default().push(count);
        }
    }
    for kept in History::read(run_dir).of("rollout_kept") {
        let groups = kept["groups"].as_u64().expect("a number of groups") as usize;
        if let Some(counts) = again.get_mut(&kept["step"].as_u64().expect("a step")) {
            counts.truncate(counts.len().saturating_sub(groups));
        }
    }
    again.into_values().flatten().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when seconds to recover are told from a calendar that is off.
    #[test]
    fn times_of_events_are_unix_times() {
        let at = |text: &str| {
            let since =
                time(&serde_json::json!({ "time": text })).duration_since(SystemTime::UNIX_EPOCH);
            since.expect("after 1970").as_millis()
        };
        assert_eq!(at("1970-01-01T00:00:00.000Z"), 0);
        assert_eq!(at("2024-02-29T12:00:00.250Z"), 1_709_208_000_250);
        assert_eq!(at("2026-11-27T15:40:18.364Z"), 1_795_794_018_364);
    }
}
