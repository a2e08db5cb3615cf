//! From a run file and its data to what each worker is asked, and how many tokens a step is.

use std::{collections::BTreeMap, fs};

use medevo_common::{
    config::{RlStage, RunConfig, SftStage, StageSection},
    dataset::Dataset,
};
use medevo_memory::{Job, Place, Row, Shape, activations};
use serde::Serialize;

use super::prompts::{PromptSizes, Sizer};
use crate::preflight::{Refused, base_of};

/// Bytes of an answer that make a token, at least.
const BYTES_PER_TOKEN: usize = 3;

/// Tokens of one training step, over all workers. Estimates: words are counted by their bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTokens {
    /// The stage.
    pub stage: String,
    /// A prompt's tokens, in the mean.
    pub prompt: f64,
    /// The longest prompt's tokens.
    pub longest_prompt: u64,
    /// Prompts go through the model once for all their candidates; with all rounds of dynamic sampling, at most.
    pub prefill: u64,
    /// Candidates' tokens, at most.
    pub rollout: u64,
    /// Prompts with their answers, at most; with beta > 0 the reference reads as many.
    pub update: u64,
}

/// What a run asks of each of its workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The model.
    pub shape: Shape,
    /// The work.
    pub job: Job,
    /// Each training stage's step.
    pub steps: Vec<StepTokens>,
}

impl Workload {
    /// Of a validated run file and the data that it uses. No weights are read.
    ///
    /// # Errors
    /// [`Refused`] where the model's `config.json`, or that of the model under an adapter, cannot be read or does not
    /// describe such a model.
    pub fn new(config: &RunConfig, datasets: &[Dataset], place: Place) -> Result<Self, Refused> {
        let base = base_of(&config.model.path)?;
        let model = base.as_deref().unwrap_or(&config.model.path);
        let file = model.join("config.json");
        let refused = |why: String| Refused::new(format!("{}: {why}", file.display()));
        let text = fs::read(&file).map_err(|error| refused(error.to_string()))?;
        let json = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        let shape = Shape::from_json(&json).map_err(refused)?;
        let mut sizer = Sizer::new(model, shape);
        let sizes: BTreeMap<&str, PromptSizes> =
            datasets.iter().map(|set| (set.name.as_str(), sizer.sizes(set))).collect();
        let mut workload = Self {
            shape,
            job: Job {
                place,
                dtype: config.model.dtype,
                freeze_vision: config.model.freeze_vision,
                train: config.train.clone(),
                lora: config.lora.clone(),
                workers: config.cluster.workers.max(1) as u64,
                tokens_per_batch: config.engine.tokens_per_batch as u64,
                reference: false,
                update: None,
                rollout: None,
                image_tokens: sizes.values().map(|sizes| sizes.image_tokens).sum(),
            },
            steps: Vec::new(),
        };
        for stage in &config.stage {
            match stage {
                StageSection::Sft(stage) => {
                    let set = datasets.iter().find(|set| set.name == stage.data);
                    workload.sft(stage, &of(&sizes, &stage.data), longest_answer(set));
                }
                StageSection::Rl(stage) => {
                    workload.rl(config, stage, &of(&sizes, &stage.data));
                    if stage.evaluate_every > 0 {
                        for data in &stage.evaluate {
                            let answer = stage.rollout.max_new_tokens as u64;
                            workload.measure(config, &of(&sizes, data), 1, answer);
                        }
                    }
                }
                StageSection::Evaluate(stage) => {
                    for data in &stage.data {
                        let (n, answer) = (stage.majority_n.max(1), stage.max_new_tokens);
                        workload.measure(config, &of(&sizes, data), n as u64, answer as u64);
                    }
                }
            }
        }
        Ok(workload)
    }

    fn sft(&mut self, stage: &SftStage, sizes: &PromptSizes, answer: u64) {
        let row = row(sizes, 1, answer);
        self.learns(row, stage.batch);
        let batch = stage.batch as f64;
        self.steps.push(StepTokens {
            stage: stage.name.clone(),
            prompt: sizes.mean,
            longest_prompt: sizes.longest,
            prefill: 0,
            rollout: 0,
            update: (batch * (sizes.mean + answer as f64)) as u64,
        });
    }

    fn rl(&mut self, config: &RunConfig, stage: &RlStage, sizes: &PromptSizes) {
        let (n, answer) = (stage.rollout.n as u64, stage.rollout.max_new_tokens as u64);
        let row = row(sizes, n, answer);
        self.learns(row, stage.questions);
        self.draws(config, row);
        self.job.reference |= stage.objective.beta > 0.0;
        let prefill = (stage.questions as f64 * sizes.mean) as u64;
        let rollout = stage.questions as u64 * n * answer;
        // Each further round draws as many questions as are missing, which may be all.
        let rounds = 1 + stage.dynamic_sampling_rounds;
        self.steps.push(StepTokens {
            stage: stage.name.clone(),
            prompt: sizes.mean,
            longest_prompt: sizes.longest,
            prefill: prefill * rounds,
            rollout: rollout * rounds,
            update: prefill + rollout,
        });
    }

    fn measure(&mut self, config: &RunConfig, sizes: &PromptSizes, n: u64, answer: u64) {
        self.draws(config, row(sizes, n, answer));
    }

    /// Keeps the stage whose micro-batch is largest.
    fn learns(&mut self, row: Row, rows: usize) {
        let share = (rows as u64).div_ceil(self.job.workers);
        let (shape, job) = (&self.shape, &self.job);
        let size = |(row, rows): &(Row, u64)| {
            let rows = job.rows_per_update(shape, row, *rows);
            let patches = if job.trains_vision() { rows * row.patches } else { 0 };
            activations::training(shape, job, rows * row.tokens(), patches)
        };
        let new = (row, share);
        if self.job.update.is_none_or(|old| size(&new) > size(&old)) {
            self.job.update = Some(new);
        }
    }

    /// Keeps the stage whose candidates take most.
    fn draws(&mut self, config: &RunConfig, row: Row) {
        let together = config.cluster.prompts_per_unit as u64;
        let size = |(row, rows): &(Row, u64)| self.job.rows_per_batch(row, *rows) * row.tokens();
        let new = (row, together);
        if self.job.rollout.is_none_or(|old| size(&new) > size(&old)) {
            self.job.rollout = Some(new);
        }
    }
}

fn of(sizes: &BTreeMap<&str, PromptSizes>, data: &str) -> PromptSizes {
    sizes.get(data).copied().unwrap_or_default()
}

fn row(sizes: &PromptSizes, answers: u64, answer: u64) -> Row {
    Row { prompt: sizes.longest, patches: sizes.patches, answers, answer }
}

/// Tokens of the longest reference of a supervised stage's data, its end-of-turn token included.
fn longest_answer(set: Option<&Dataset>) -> u64 {
    let references = set.map(|set| set.references.as_slice()).unwrap_or_default();
    let lengths = references.iter().flatten().map(|reference| reference.reveal().len());
    (lengths.max().unwrap_or(0).div_ceil(BYTES_PER_TOKEN) + 1) as u64
}
