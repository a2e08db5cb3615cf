//! A run without torch: a small plan, and workers in this process that answer every directive at once
//! and keep what they were told.

#![allow(dead_code, reason = "each test binary uses its own part of the fleet")]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use medevo_common::{
    config::RunConfig,
    dataset::{Dataset, Question, Reference},
    manifest::hash_file,
};
use medevo_coord::{
    driver::{
        Chronicle, CopyTo, Driver, Handle, Identity, Parts, Plan, Retention, Scores, resolve,
    },
    leadership::{Lead, campaign},
    run_dir::RunDir,
    store::recover,
};
use medevo_core::api::Outcome;
use medevo_store::{Memory, Store};
use medevo_types::{
    Attempt, Digest, Generation, Incarnation, PolicyVersion, Step, WorkerTag,
    messages::{
        Ballot, Candidate, Directive, Envelope, FileEntry, Group, Holding, Report, RolloutUnit,
    },
};
use tokio::{task::JoinHandle, time::timeout};

/// Answers that no worker may ever see in an rl stage.
pub const CANARY: &str = "canary-in-the-coal-mine";

/// A short supervised stage.
pub const THREE_STEPS: &str = r#"
    [[stage]]
    kind = "evaluate"
    name = "before"
    data = ["target"]
    majority_n = 3
    [[stage]]
    kind = "rl"
    name = "adapt"
    data = "target"
    steps = 3
    questions = 4
    rollout = { n = 6 }
    [[stage]]
    kind = "evaluate"
    name = "after"
    data = ["target"]
"#;

/// A run file over the data sets `source` (for sft) and `target`.
pub fn config(stages: &str) -> RunConfig {
    let text = format!(
        r#"
        [run]
        name = "fleet"
        seed = 7
        [model]
        path = "model"
        [data.source]
        path = "source"
        format = "slake"
        [data.target]
        path = "target"
        format = "slake"
        [cluster]
        workers = 2
        min_workers = 1
        max_workers = 2
        grace_s = 0.5
        starve_s = 10.0
        prompts_per_unit = 2
        {stages}
        "#
    );
    RunConfig::parse(&text, Path::new("run.toml")).expect("a well-formed run file")
}

/// A data set of eight questions; answers are `{answer} {index}`.
pub fn dataset(name: &str, answer: &str) -> Dataset {
    dataset_of(name, answer, 8)
}

/// As [`dataset`], of so many.
pub fn dataset_of(name: &str, answer: &str, questions: usize) -> Dataset {
    let question = |index: usize| Question {
        id: medevo_types::SampleId(format!("{name}/{index}")),
        images: vec![format!("/images/{name}-{index}.png").into()],
        text: format!("Which organ is shown ({index})?"),
        closed: index.is_multiple_of(2),
        tags: vec![("modality".into(), if index < 4 { "ct" } else { "mri" }.into())],
    };
    Dataset {
        name: name.into(),
        questions: (0..questions).map(question).collect(),
        references: (0..questions)
            .map(|index| Some(Reference::new(format!("{answer} {index}"))))
            .collect(),
    }
}

/// A run in a folder, on a store that outlives its coordinator.
pub struct Run {
    pub dir: RunDir,
    pub store: Memory,
    pub config: RunConfig,
    pub target: Dataset,
    _folder: tempfile::TempDir,
}

impl Run {
    pub fn new(stages: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(stages);
        // It is the KL reference of a first rl stage, so it has to be there.
        config.model.path = folder.path().join("model");
        fs::create_dir(&config.model.path).expect("a folder");
        let dir = RunDir::create(&folder.path().join("run"), &config).expect("a new run directory");
        let target = dataset("target", CANARY);
        Self { dir, store: Memory::default(), config, target, _folder: folder }
    }

    pub fn plan(&self) -> Plan {
        let datasets = [dataset("source", "liver"), self.target.clone()];
        resolve(&self.config, &datasets, &self.dir.checkpoints()).expect("a run that makes sense")
    }

    /// The lead of this run, which nobody may have.
    pub fn lead(&self) -> Lead {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let lead = campaign(&store, "127.0.0.1:7000", Duration::from_secs(10));
        lead.expect("a store that works").expect("nobody leads")
    }

    /// A coordinator on this run's store.
    pub fn coordinator(&self) -> (Handle, JoinHandle<()>) {
        self.coordinator_with(None)
    }

    /// A coordinator that copies its checkpoints.
    pub fn coordinator_with(&self, copies: Option<CopyTo>) -> (Handle, JoinHandle<()>) {
        let lead = self.lead();
        let recovery = recover(&lead, &self.dir.checkpoints()).expect("a store that works");
        let identity = Identity {
            run_id: "fleet".into(),
            seed: 7,
            config: Digest("c".into()),
            run_dir: self.dir.path().to_owned(),
        };
        let chronicle = Chronicle::open(&self.dir).expect("a run directory that works");
        let scores = Scores::read(&self.config.checkpoint, &self.dir).expect("readable events");
        let retention = Retention::of(&self.config.checkpoint);
        let plan = self.plan();
        let parts = Parts { plan, lead, recovery, chronicle, identity, retention, scores, copies };
        Driver::start(parts).expect("a driver")
    }

    /// The event stream so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.events_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }
}

/// How the run ended.
pub async fn outcome(handle: &Handle) -> Outcome {
    let mut over = handle.over();
    let ended = timeout(Duration::from_secs(60), over.wait_for(Option::is_some)).await;
    let explain = || handle.status().borrow().view.explain.clone();
    let ended = ended.unwrap_or_else(|_| panic!("the run does not end: {}", explain()));
    ended.expect("the driver lives").clone().expect("an outcome")
}

/// A worker without an engine.
#[derive(Clone)]
pub struct Worker {
    pub tag: WorkerTag,
    /// Every directive that it was handed, as JSON.
    pub heard: Arc<Mutex<Vec<String>>>,
    /// Leave without a word at the first directive that this returns true for.
    pub dies_at: fn(&Directive) -> bool,
    /// Questions on which all candidates agree, so that nothing can be learned from them.
    pub agrees_on: fn(&str) -> bool,
}

impl Worker {
    pub fn new(name: &str, life: u64) -> Self {
        let tag = WorkerTag { worker: name.into(), incarnation: Incarnation(life) };
        Self { tag, heard: Arc::default(), dies_at: |_| false, agrees_on: |_| false }
    }

    /// Joins and works until told to stop (true) or dead (false).
    pub fn start(self, handle: &Handle) -> JoinHandle<bool> {
        let handle = handle.clone();
        tokio::spawn(async move { self.work(&handle).await })
    }

    async fn work(self, handle: &Handle) -> bool {
        handle.join(self.tag.clone(), "fake".into(), "127.0.0.1".into()).await.expect("let in");
        let mut standing = Generation(0);
        let mut holding: Option<Holding> = None;
        loop {
            let directive = handle.next(self.tag.clone()).await.expect("a member");
            let text = serde_json::to_string(&directive).expect("a directive in JSON");
            self.heard.lock().expect("no panics").push(text);
            if (self.dies_at)(&directive) {
                return false;
            }
            let (generation, step, attempt, body) = match directive {
                Directive::Wait { .. } => continue,
                Directive::Stop { .. } => return true,
                Directive::Form(roster) => {
                    standing = roster.generation;
                    (standing, Step(0), Attempt(0), Report::Formed { holding: holding.clone() })
                }
                Directive::Restore(restore) => {
                    let held = hold(restore.policy);
                    holding = Some(held.clone());
                    (restore.generation, Step(0), Attempt(0), Report::Restored { holding: held })
                }
                Directive::Rollout(unit) => {
                    let groups = draw(&unit, self.agrees_on);
                    let body = Report::RolloutDone { unit: unit.unit, policy: unit.policy, groups };
                    (standing, unit.step, Attempt(0), body)
                }
                Directive::Update(work) => {
                    let ballot = Ballot {
                        gradient: Digest(format!("gradient of {}", work.step)),
                        finite: true,
                        grad_norm: 1.0,
                        figures: vec![("loss".into(), 0.5), ("tokens".into(), 100.0)],
                    };
                    (work.generation, work.step, work.attempt, Report::Ballot(ballot))
                }
                Directive::Apply(work) => {
                    let held = hold(work.policy);
                    holding = Some(held.clone());
                    (work.generation, work.step, work.attempt, Report::Applied { holding: held })
                }
                Directive::Checkpoint(work) => {
                    let files = save(&work.dir);
                    (work.generation, work.step, Attempt(0), Report::CheckpointWritten { files })
                }
            };
            let from = self.tag.clone();
            // Turned away is fine: a fake that is late behaves like a worker that is.
            let _ = handle.report(Envelope { from, generation, step, attempt, body }).await;
        }
    }
}

fn hold(policy: PolicyVersion) -> Holding {
    Holding { policy, digest: Digest(format!("weights {policy}")) }
}

/// Two thirds of the candidates agree, so every group has a label and some variance; except where all agree.
fn draw(unit: &RolloutUnit, agrees_on: fn(&str) -> bool) -> Vec<Group> {
    let candidate = |differs: bool| {
        let text = if differs { "heart" } else { "left lung" };
        Candidate {
            ids: vec![if differs { 5 } else { 6 }, 1],
            text: text.into(),
            logprobs: vec![-0.5, -0.1],
            finished: true,
            feature: None,
        }
    };
    let group = |prompt: &medevo_types::messages::Prompt| Group {
        sample: prompt.sample.clone(),
        prompt_tokens: 10,
        candidates: (0..unit.sampling.n)
            .map(|index| candidate(index % 3 == 2 && !agrees_on(&prompt.sample.0)))
            .collect(),
        entropy: 0.3,
    };
    unit.prompts.iter().map(group).collect()
}

fn save(dir: &Path) -> Vec<FileEntry> {
    fs::create_dir_all(dir).expect("a folder");
    let path = dir.join("model.safetensors");
    fs::write(&path, "weights").expect("a file");
    let (bytes, digest) = hash_file(&path).expect("a file");
    vec![FileEntry { name: "model.safetensors".into(), bytes, digest }]
}
