//! `events.jsonl` of a run, and the invariants that can be read off it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
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
        let committed: Vec<u64> = self.committed().into_keys().collect();
        assert_eq!(committed, (1..=steps).collect::<Vec<_>>(), "every step is committed");
        let mut last = 0;
        for opened in self.of("generation_opened") {
            let generation = opened["generation"].as_u64().expect("a number");
            assert!(generation > last, "INV-3: generation {generation} after {last}");
            last = generation;
        }
        let last = self.0.last().expect("a run has events");
        let over = self.of("finished").last().unwrap_or(last);
        assert!(over.to_string().to_lowercase().contains("done"), "the run is done: {over}");
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

    /// A figure of every committed step, by step.
    #[must_use]
    pub fn figure(&self, name: &str) -> BTreeMap<u64, f64> {
        self.committed()
            .into_iter()
            .filter_map(|(step, e)| Some((step, e["figures"][name].as_f64()?)))
            .collect()
    }
}
