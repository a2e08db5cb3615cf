//! What one worker is asked to do.

use medevo_types::settings::{Dtype, LoraSettings, TrainSettings};

use crate::shape::Shape;

/// Where a worker computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the machine's memory, which the process and its caches share.
    Cpu,
    /// On a GPU of its own.
    Gpu,
}

/// A question with its answers, at its longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Prompt, tokens.
    pub prompt: u64,
    /// Patches of its images.
    pub patches: u64,
    /// Answers (N), distinct ones at worst.
    pub answers: u64,
    /// Longest answer, tokens.
    pub answer: u64,
}

impl Row {
    /// Tokens when the answers share the prompt.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt + self.answers * self.answer
    }
}

/// A run, from one worker's point of view.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Where it computes.
    pub place: Place,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// The vision tower is not trained.
    pub freeze_vision: bool,
    /// How training spends memory.
    pub train: TrainSettings,
    /// Adapters instead of the weights.
    pub lora: Option<LoraSettings>,
    /// Workers of the run.
    pub workers: u64,
    /// Tokens that one forward pass may hold.
    pub tokens_per_batch: u64,
    /// Some stage needs the weights of its start beside the current ones (beta > 0).
    pub reference: bool,
    /// The longest row of what is learned from, and how many of them one worker gets at a step; none in a run
    /// that only measures.
    pub update: Option<(Row, u64)>,
    /// The longest row of what is drawn, and how many of them are drawn together at most.
    pub rollout: Option<(Row, u64)>,
    /// Tokens of all distinct images.
    pub image_tokens: u64,
}

impl Job {
    /// Bytes of a number of the weights.
    #[must_use]
    pub fn width(&self) -> u64 {
        match self.dtype {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }

    /// Bytes of a number that learns: adapters are f32 whatever the weights are.
    #[must_use]
    pub fn trained_width(&self) -> u64 {
        if self.lora.is_some() { 4 } else { self.width() }
    }

    /// How many of `rows` like `row` go into one forward pass: at least one, however long.
    #[must_use]
    pub fn rows_per_batch(&self, row: &Row, rows: u64) -> u64 {
        (self.tokens_per_batch / row.tokens().max(1)).clamp(1, rows.max(1))
    }

    /// How many of `rows` like `row` are trained on in one pass: where the vision tower learns, a patch counts as
    /// the share of a text token's activations that its own make up, as in the engine.
    #[must_use]
    pub fn rows_per_update(&self, shape: &Shape, row: &Row, rows: u64) -> u64 {
        let kept = |layers: u64, width: u64, inner: u64| layers * (12 * width + 4 * inner);
        let token = kept(shape.layers, shape.hidden, shape.inner).max(1);
        let patch = kept(shape.vision.depth, shape.vision.width, shape.vision.inner);
        let patches = if self.trains_vision() { row.patches } else { 0 };
        let cost = row.tokens() + (patches * patch).div_ceil(token);
        (self.tokens_per_batch / cost.max(1)).clamp(1, rows.max(1))
    }

    /// Whether the vision tower is in the graph of an update.
    #[must_use]
    pub fn trains_vision(&self) -> bool {
        let learns = |lora: &LoraSettings| lora.targets.iter().any(|target| in_tower(target));
        !self.freeze_vision && self.lora.as_ref().is_none_or(learns)
    }
}

/// Whether a target of adapters means layers of the vision tower.
fn in_tower(target: &str) -> bool {
    let names =
        ["gate_proj", "up_proj", "down_proj", "qkv", "proj", "fc1", "fc2", "mlp.0", "mlp.2"];
    names.iter().any(|name| target == *name || target.ends_with(&format!(".{name}")))
}
