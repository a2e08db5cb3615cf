//! The run file as it is written. Doc comments and defaults here become docs/config.md.

use std::{collections::BTreeMap, path::PathBuf};

use medevo_types::settings::{
    Dtype, EmbedderSettings, LabelSettings, LoraSettings, Objective, OptimizerSettings,
    RewardSettings, Sampling, TrainSettings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::CheckpointSection, k8s::K8sSection, slurm::SlurmSection, store::StoreSection,
};

/// A run: which model, which data, which stages, on how many workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name, seed and place of the run.
    pub run: RunSection,
    /// The model to start from.
    pub model: ModelSection,
    /// Data sets by name; stages refer to these names.
    pub data: BTreeMap<String, DataSection>,
    /// What to do, in order.
    pub stage: Vec<StageSection>,
    /// Workers and deadlines.
    #[serde(default)]
    pub cluster: ClusterSection,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// Where the run's state is kept.
    #[serde(default)]
    pub store: StoreSection,
    /// Memory and speed of the engine.
    #[serde(default)]
    pub engine: EngineSection,
    /// How training spends memory.
    #[serde(default)]
    pub train: TrainSettings,
    /// Train low-rank adapters (LoRA) instead of the weights: `y = W x + (alpha / rank) · B A x`. Without this
    /// section all weights are trained. Names as in PEFT's `LoraConfig`; dropout is 0. Adapters are f32 whatever
    /// `model.dtype` says. Checkpoints hold the adapter in PEFT's layout; `medevo-worker merge` makes a whole
    /// model of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
}

/// Name, seed and place of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Name of the run; the default run directory is `runs/<name>`.
    pub name: String,
    /// Seed of everything random in the run.
    #[serde(default)]
    pub seed: u64,
    /// Run directory; relative paths are relative to where the command is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// The model to start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// A Hugging Face directory (config.json, tokenizer.json, safetensors, ...); or that of an adapter in PEFT's
    /// layout, which names its base, to measure it or, with `[lora]`, to train it further.
    pub path: PathBuf,
    /// Number type of the weights.
    #[serde(default = "f32_weights")]
    pub dtype: Dtype,
    /// Train only the language model and leave the vision tower as it is.
    #[serde(default)]
    pub freeze_vision: bool,
}

fn f32_weights() -> Dtype {
    Dtype::F32
}

/// Layout of a data set on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// SLAKE: `train.json`, `validation.json` (or `validate.json`), `test.json`, `imgs/`.
    Slake,
    /// One JSON object a line: id, image (path or list), question, optional answer, answer_type, tags.
    Jsonl,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// SLAKE directory, or JSONL file.
    pub path: PathBuf,
    /// Layout.
    pub format: DataFormat,
    /// SLAKE: which split ("train", "validation", "test").
    #[serde(default = "test_split")]
    pub split: String,
    /// SLAKE: keep questions in this language; empty keeps all.
    #[serde(default = "english")]
    pub language: String,
    /// Keep only the first so many questions; 0 keeps all.
    #[serde(default)]
    pub limit: usize,
}

fn test_split() -> String {
    "test".into()
}

fn english() -> String {
    "en".into()
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageSection {
    /// Supervised warm start on labelled data.
    Sft(SftStage),
    /// Med-Evo: label-free reinforcement learning.
    Rl(Box<RlStage>),
    /// Measure.
    Evaluate(EvaluateStage),
}

impl StageSection {
    /// Name of the stage.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Sft(stage) => &stage.name,
            Self::Rl(stage) => &stage.name,
            Self::Evaluate(stage) => &stage.name,
        }
    }

    /// What it does, as `kind` says in the run file: "sft", "rl" or "evaluate".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sft(_) => "sft",
            Self::Rl(_) => "rl",
            Self::Evaluate(_) => "evaluate",
        }
    }
}

/// Supervised warm start on labelled data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftStage {
    /// Name of the stage.
    pub name: String,
    /// Name of the labelled data set.
    pub data: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Examples a step, over all workers.
    pub batch: usize,
    /// So many consecutive questions of the file stay together in a step. Where they are about one image,
    /// it is encoded once for all of them.
    #[serde(default = "one")]
    pub together: usize,
    /// AdamW.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
}

fn one() -> usize {
    1
}

/// Med-Evo: label-free reinforcement learning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RlStage {
    /// Name of the stage.
    pub name: String,
    /// Name of the data set; its answers, if it has any, are not read by this stage.
    pub data: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Questions a rollout, and so a step (with objective.num_iterations so many steps).
    pub questions: usize,
    /// Dynamic sampling (DAPO): while fewer than `questions` groups teach something, because a group abstains or
    /// all its rewards are equal, the rollout goes on with the next questions of the order, as many as are
    /// missing, for up to so many rounds more. 0 turns it off. No rollout draws more questions than the data has.
    #[serde(default)]
    pub dynamic_sampling_rounds: u64,
    /// How candidates are drawn.
    #[serde(default)]
    pub rollout: Sampling,
    /// FPL.
    #[serde(default)]
    pub label: LabelSettings,
    /// What FPL and HSR compare answers with.
    #[serde(default)]
    pub embedder: EmbedderSettings,
    /// HSR.
    #[serde(default)]
    pub reward: RewardSettings,
    /// The loss.
    #[serde(default)]
    pub objective: Objective,
    /// AdamW.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
    /// Evaluate every so many steps of this stage; 0 never.
    #[serde(default)]
    pub evaluate_every: u64,
    /// On these data sets.
    #[serde(default)]
    pub evaluate: Vec<String>,
}

/// Measure: greedy answers, and optionally maj@N.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateStage {
    /// Name of the stage.
    pub name: String,
    /// Names of the data sets.
    pub data: Vec<String>,
    /// Also draw so many answers at temperature 1 and score their majority (maj@N); 0 does not.
    #[serde(default)]
    pub majority_n: usize,
    /// Longest answer, tokens.
    #[serde(default = "answer_tokens")]
    pub max_new_tokens: usize,
}

fn answer_tokens() -> usize {
    32
}

/// What a worker computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerDevice {
    /// The machine's processors, which its workers share.
    Cpu,
    /// A GPU each: the first worker has `cuda:0`, the second `cuda:1`, and so on.
    Cuda,
}

/// Workers and deadlines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    /// Workers that `launch` starts on this machine. With `device = "cuda"` and no number here, one for each GPU that
    /// libtorch sees.
    pub workers: usize,
    /// What they compute on. Workers that join from elsewhere say it themselves (`medevo-worker join --device`), and
    /// all of a run compute on the same.
    pub device: WorkerDevice,
    /// A run goes on with no fewer than these.
    pub min_workers: usize,
    /// More are refused.
    pub max_workers: usize,
    /// Address that the coordinator listens on. One that other machines reach needs `certificates` or
    /// `trusted_network`.
    pub listen: String,
    /// Host name or address at which workers reach the coordinator, without port, where that is another than `listen`
    /// says (`0.0.0.0` for example). An IPv6 address stands in brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Address at which the coordinator serves figures for Prometheus, such as "127.0.0.1:7080"; left out: nowhere.
    /// Whoever reaches it can read them: where the run stands, names of stages and workers, no question and no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Directory of certificates, made by `medevo-coord certs init`: coordinator and workers then speak TLS and check
    /// each other. The join token is needed as before. Gradients and weights go over the collectives, which are
    /// not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
    /// Everyone on the network of `listen` may read what coordinator and workers say to each other, the join token
    /// included: lets a coordinator without certificates listen beyond this machine.
    pub trusted_network: bool,
    /// Address at which workers reach each other's collectives.
    pub collective_address: String,
    /// A worker silent for this long is lost, seconds.
    pub lease_ttl_s: f64,
    /// How long to wait, once min_workers are there, for the other workers that `launch` starts, or for max_workers where
    /// they come by themselves, seconds.
    pub grace_s: f64,
    /// How long to wait for min_workers before the run fails, seconds.
    pub starve_s: f64,
    /// Deadline of one collective operation, seconds; below every phase deadline.
    pub collective_timeout_s: f64,
    /// Deadline of forming a communicator, seconds, on top of what a worker may still be busy with.
    pub form_s: f64,
    /// Deadline of getting weights in place, seconds.
    pub restore_s: f64,
    /// Deadline of one rollout unit, seconds; an overdue unit is handed out again.
    pub unit_s: f64,
    /// Deadline of scoring a step, seconds.
    pub score_s: f64,
    /// Deadline of one update, seconds.
    pub update_s: f64,
    /// Deadline of applying a committed update, seconds.
    pub apply_s: f64,
    /// Tries at one step before the run fails.
    pub max_attempts: u64,
    /// Questions in one unit of rollout work.
    pub prompts_per_unit: usize,
    /// Memory of each worker's GPU, GiB: a run that needs more is refused before it starts. 0: not known with
    /// `device = "cuda"`, and otherwise the workers share this machine's memory evenly.
    pub device_memory_gib: f64,
    /// On Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8sSection>,
    /// What the run asks of Slurm, where it runs there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slurm: Option<SlurmSection>,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self {
            workers: 2,
            device: WorkerDevice::Cpu,
            min_workers: 1,
            max_workers: 64,
            listen: "127.0.0.1:0".into(),
            advertise: None,
            metrics: None,
            certificates: None,
            trusted_network: false,
            collective_address: "127.0.0.1".into(),
            lease_ttl_s: 10.0,
            grace_s: 5.0,
            starve_s: 120.0,
            collective_timeout_s: 30.0,
            form_s: 60.0,
            restore_s: 300.0,
            unit_s: 120.0,
            score_s: 60.0,
            update_s: 300.0,
            apply_s: 60.0,
            max_attempts: 5,
            prompts_per_unit: 4,
            device_memory_gib: 0.0,
            k8s: None,
            slurm: None,
        }
    }
}

/// Memory and speed of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// CPU threads a worker; 0 shares the cores evenly among this machine's workers.
    pub threads: usize,
    /// Longest prompt accepted, tokens; longer ones are refused before the run starts, never cut.
    pub max_prompt_tokens: usize,
    /// Tokens that one forward pass may hold: this sets the memory. In training, where the vision
    /// tower learns, an image's patches count too, each as the share of a text token's activations that its own
    /// make up (about a third for the published models).
    pub tokens_per_batch: usize,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self { threads: 0, max_prompt_tokens: 4096, tokens_per_batch: 4096 }
    }
}
