//! A small run in a temporary folder: mini-SLAKE, a tiny random model, a run file.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{
    Finished, coord, finish, is_stopped, must, processes_naming, signal, until, wait, worker,
};

/// A folder with data and a model, and what a test needs to run on them.
pub struct Lab {
    root: tempfile::TempDir,
}

/// The checkout that the tests were built from.
#[must_use]
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the checkout").to_owned()
}

impl Lab {
    /// Makes data (24 source, 6 target and 4 held-out images), a model of random weights and `run.toml`.
    ///
    /// # Panics
    /// When one of the commands fails.
    #[must_use]
    pub fn new() -> Self {
        let lab = Self { root: tempfile::tempdir().expect("a temporary folder") };
        let mut data = coord(["data", "mini-slake", &lab.path("data"), "--seed", "7"]);
        data.args(["--source-images", "24", "--target-images", "6", "--heldout-images", "4"]);
        must(data);
        let config = checkout().join("ops/demo/tiny-qwen2.5-vl");
        let config = config.to_string_lossy();
        must(worker(["init", "--config", &config, "--seed", "1", "--out", &lab.path("model")]));
        std::fs::write(lab.root.path().join("run.toml"), RUN).expect("run.toml is written");
        lab
    }

    /// Changes `run.toml`.
    ///
    /// # Panics
    /// When it cannot be read or written.
    pub fn amend(&self, change: impl FnOnce(String) -> String) {
        let path = self.root.path().join("run.toml");
        let text = std::fs::read_to_string(&path).expect("run.toml is read");
        std::fs::write(&path, change(text)).expect("run.toml is written");
    }

    /// A path within the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_string_lossy().into_owned()
    }

    /// A target image, the same one every time.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn an_image(&self) -> String {
        let folders = std::fs::read_dir(self.path("data/target/imgs")).expect("images");
        let images = folders.flatten().map(|folder| folder.path().join("source.jpg"));
        images.min().expect("an image").to_string_lossy().into_owned()
    }

    /// The run directory of run `name`.
    #[must_use]
    pub fn run_dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `medevo-coord launch run.toml` into run directory `name` with `workers`, not yet started.
    #[must_use]
    pub fn launch(&self, name: &str, workers: usize) -> std::process::Command {
        let mut c = coord(["launch", &self.path("run.toml"), "--run-dir", &self.path(name)]);
        c.args(["--workers", &workers.to_string()]);
        c
    }

    /// Launches and expects a run that is done.
    #[must_use]
    pub fn run(&self, name: &str, workers: usize) -> Finished {
        finish(self.launch(name, workers)).expect_code(0)
    }

    /// Waits until run `name` has committed `steps` steps.
    pub fn until_committed(&self, name: &str, steps: usize) {
        let events = self.run_dir(name).join("events.jsonl");
        until(&format!("{steps} steps"), || {
            std::fs::read_to_string(&events).is_ok_and(|text| {
                text.lines().filter(|line| line.contains("\"step_committed\"")).count() >= steps
            })
        });
    }

    /// `medevo-coord resume` of run directory `name`.
    #[must_use]
    pub fn resume(&self, name: &str, workers: usize) -> Finished {
        let mut c = coord(["resume", &self.path(name)]);
        c.args(["--workers", &workers.to_string()]);
        finish(c)
    }

    /// Runs `launch`, the command of run directory `name`, until the coordinator is killed at `point`
    /// ("phase@step"), and resumes the run with `workers` to its end.
    #[must_use]
    pub fn killed_and_resumed(
        &self,
        name: &str,
        mut launch: Command,
        point: &str,
        workers: usize,
    ) -> Finished {
        launch.env("MEDEVO_COORD_FAULT", point);
        let killed = finish(launch);
        assert_eq!(killed.status.code(), None, "{point}: killed by a signal\n{}", killed.said());
        let dir = self.run_dir(name);
        until("workers die with their coordinator", || processes_naming(&dir).is_empty());
        self.resume(name, workers).expect_code(0)
    }

    /// As [`Lab::killed_and_resumed`], but interrupted by Ctrl-C, so that the run drains.
    ///
    /// # Panics
    /// When the coordinator ends before `point`, or does not drain.
    #[must_use]
    pub fn drained_and_resumed(
        &self,
        name: &str,
        mut launch: Command,
        point: &str,
        workers: usize,
    ) -> Finished {
        launch.env("MEDEVO_COORD_FAULT", format!("stop:{point}"));
        let mut child = launch.spawn().expect("the coordinator starts");
        until(&format!("{name} stops at {point}"), || {
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "{point}: it has ended");
            is_stopped(child.id())
        });
        signal(child.id(), "INT");
        signal(child.id(), "CONT");
        // What it prints in so short a run fits a pipe.
        let drained = wait(child).expect_code(3);
        assert!(drained.stdout.contains("drained"), "{}", drained.said());
        self.resume(name, workers).expect_code(0)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// Every kind of stage, every phase, as short as can be: 4 supervised and 6 label-free steps.
const RUN: &str = r#"
[run]
name = "small"
seed = 5

[model]
path = "model"

[data.source]
path = "data/source"
format = "slake"
split = "train"

[data.target]
path = "data/target"
format = "slake"

[[stage]]
kind = "sft"
name = "warm-start"
data = "source"
steps = 4
batch = 12
[stage.optimizer]
lr = 2e-3

[[stage]]
kind = "evaluate"
name = "base"
data = ["target"]
max_new_tokens = 6

[[stage]]
kind = "rl"
name = "adapt"
data = "target"
steps = 6
questions = 6
[stage.rollout]
n = 6
max_new_tokens = 6
[stage.objective]
beta = 0.1
[stage.optimizer]
lr = 1e-3

[[stage]]
kind = "evaluate"
name = "adapted"
data = ["target"]
max_new_tokens = 6

[cluster]
prompts_per_unit = 2
lease_ttl_s = 4
grace_s = 3
collective_timeout_s = 10

[checkpoint]
every_steps = 3
"#;

/// The training steps of [`Lab`]'s run.
pub const STEPS: u64 = 10;
