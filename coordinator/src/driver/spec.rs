//! From the run file and its data to what the core, the materialiser, the scorers and the evaluator need.

use std::{collections::BTreeMap, path::Path};

use medevo_common::{
    config::{ClusterSection, RunConfig, StageSection},
    dataset::Dataset,
};
use medevo_core::api::{DataIndex, Deadlines, EvalPass, Millis, RunSpec, StageKind, StageSpec};
use medevo_scoring::ScorerSettings;
use medevo_types::settings::{EmbedderKind, Sampling, Shard};

use super::{
    evaluator::Evaluator,
    materialise::{Materialiser, Supervised},
};

/// A run, resolved.
#[derive(Debug)]
pub struct Plan {
    /// For the core.
    pub spec: RunSpec,
    /// Puts questions into orders.
    pub materialiser: Materialiser,
    /// Scorer settings of each rl stage, by stage index.
    pub scoring: BTreeMap<usize, ScorerSettings>,
    /// Measures evaluation passes.
    pub evaluator: Evaluator,
}

/// Why a run file and its data do not make a run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A stage names data that is not there.
    #[error(
        "stage `{stage}` uses the data set `{data}`, which is not loaded; add a [data.{data}] section"
    )]
    NoData {
        /// The stage.
        stage: String,
        /// The data set.
        data: String,
    },
    /// A data set without questions.
    #[error(
        "stage `{stage}` uses the data set `{data}`, which has no questions; check its path, split and \
         language"
    )]
    Empty {
        /// The stage.
        stage: String,
        /// The data set.
        data: String,
    },
    /// A stage needs answers that the data lacks.
    #[error(
        "stage `{stage}` needs an answer to every question of the data set `{data}`, but {missing} of {n} \
         have none (the first is `{first}`)"
    )]
    NoAnswers {
        /// The stage.
        stage: String,
        /// The data set.
        data: String,
        /// Questions without an answer.
        missing: usize,
        /// Questions in all.
        n: usize,
        /// Id of the first without.
        first: String,
    },
}

/// Names of the data sets that the run's stages use, each once, in order of their names.
#[must_use]
pub fn data_in_use(config: &RunConfig) -> Vec<String> {
    let mut names = Vec::new();
    for stage in &config.stage {
        match stage {
            StageSection::Sft(stage) => names.push(stage.data.clone()),
            StageSection::Rl(stage) => {
                names.push(stage.data.clone());
                if stage.evaluate_every > 0 {
                    names.extend(stage.evaluate.iter().cloned());
                }
            }
            StageSection::Evaluate(stage) => names.extend(stage.data.iter().cloned()),
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Resolves a run. `datasets` are those of [`data_in_use`], in any order. References go to two places only:
/// those of sft data into [`Supervised`], those of evaluation data into the [`Evaluator`] (INV-9).
///
/// # Errors
/// [`PlanError`].
pub fn resolve(
    config: &RunConfig,
    datasets: &[Dataset],
    checkpoints: &Path,
) -> Result<Plan, PlanError> {
    let find = |stage: &str, data: &str| {
        let missing = || PlanError::NoData { stage: stage.into(), data: data.into() };
        let index = datasets.iter().position(|dataset| dataset.name == data).ok_or_else(missing)?;
        if datasets[index].questions.is_empty() {
            return Err(PlanError::Empty { stage: stage.into(), data: data.into() });
        }
        Ok((index, datasets[index].questions.len()))
    };
    let mut supervised = Supervised::default();
    let mut evaluator = Evaluator::new(config.run.seed);
    let mut scoring = BTreeMap::new();
    let mut stages = Vec::new();
    for (index, section) in config.stage.iter().enumerate() {
        let (name, kind) = match section {
            StageSection::Sft(stage) => {
                let (data, samples) = find(&stage.name, &stage.data)?;
                supervised.admit(data, answered(&stage.name, &datasets[data])?);
                let kind = StageKind::Sft {
                    data,
                    samples,
                    batch: stage.batch,
                    together: stage.together,
                    steps: stage.steps,
                    optimizer: stage.optimizer.clone(),
                };
                (&stage.name, kind)
            }
            StageSection::Rl(stage) => {
                let (data, samples) = find(&stage.name, &stage.data)?;
                let mut passes = Vec::new();
                if stage.evaluate_every > 0 {
                    for name in &stage.evaluate {
                        let (data, samples) = find(&stage.name, name)?;
                        evaluator.admit(
                            data,
                            &datasets[data],
                            answered(&stage.name, &datasets[data])?,
                        );
                        passes.push(greedy(name, data, samples, stage.rollout.max_new_tokens));
                    }
                }
                let settings = ScorerSettings {
                    label: stage.label.clone(),
                    embedder: stage.embedder.clone(),
                    reward: stage.reward.clone(),
                    scale: stage.objective.scale_rewards,
                    dynamic_sampling: stage.dynamic_sampling_rounds > 0,
                };
                scoring.insert(index, settings);
                let kind = StageKind::Rl {
                    data,
                    samples,
                    questions: stage.questions,
                    extra_rounds: stage.dynamic_sampling_rounds,
                    steps: stage.steps,
                    sampling: stage.rollout.clone(),
                    features: stage.embedder.kind == EmbedderKind::Policy,
                    objective: stage.objective.clone(),
                    optimizer: stage.optimizer.clone(),
                    evaluate_every: stage.evaluate_every,
                    passes,
                };
                (&stage.name, kind)
            }
            StageSection::Evaluate(stage) => {
                let mut passes = Vec::new();
                for name in &stage.data {
                    let (data, samples) = find(&stage.name, name)?;
                    evaluator.admit(data, &datasets[data], answered(&stage.name, &datasets[data])?);
                    passes.push(greedy(name, data, samples, stage.max_new_tokens));
                    if stage.majority_n > 0 {
                        passes.push(majority(
                            name,
                            data,
                            samples,
                            stage.majority_n,
                            stage.max_new_tokens,
                        ));
                    }
                }
                (&stage.name, StageKind::Evaluate { passes })
            }
        };
        stages.push(StageSpec { name: name.clone(), kind });
    }
    let spec = RunSpec {
        seed: config.run.seed,
        model: config.model.path.clone(),
        adapters: config.lora.is_some(),
        checkpoints: checkpoints.to_owned(),
        stages,
        min_workers: config.cluster.min_workers,
        max_workers: config.cluster.max_workers,
        expected_workers: config.cluster.max_workers,
        prompts_per_unit: config.cluster.prompts_per_unit,
        checkpoint_every: config.checkpoint.every_steps,
        sharded: config.train.shard == Shard::Optimizer,
        max_attempts: config.cluster.max_attempts,
        deadlines: deadlines(&config.cluster, config.checkpoint.timeout_s),
    };
    let materialiser = Materialiser::new(datasets, supervised);
    Ok(Plan { spec, materialiser, scoring, evaluator })
}

/// The references of a data set, one per question.
fn answered(
    stage: &str,
    dataset: &Dataset,
) -> Result<Vec<medevo_common::dataset::Reference>, PlanError> {
    let known: Vec<_> = dataset.references.iter().flatten().cloned().collect();
    let n = dataset.questions.len();
    if known.len() == n {
        return Ok(known);
    }
    let first = dataset.references.iter().position(Option::is_none).unwrap_or_default();
    Err(PlanError::NoAnswers {
        stage: stage.into(),
        data: dataset.name.clone(),
        missing: n - known.len().min(n),
        n,
        first: dataset
            .questions
            .get(first)
            .map(|question| question.id.to_string())
            .unwrap_or_default(),
    })
}

fn greedy(name: &str, data: DataIndex, samples: usize, max_new_tokens: usize) -> EvalPass {
    let sampling = Sampling { n: 1, temperature: 0.0, top_p: 1.0, top_k: 0, max_new_tokens };
    EvalPass { name: format!("{name} greedy"), data, samples, sampling }
}

fn majority(
    name: &str,
    data: DataIndex,
    samples: usize,
    n: usize,
    max_new_tokens: usize,
) -> EvalPass {
    let sampling = Sampling { n, temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens };
    EvalPass { name: format!("{name} maj@{n}"), data, samples, sampling }
}

fn deadlines(cluster: &ClusterSection, checkpoint_s: f64) -> Deadlines {
    Deadlines {
        lease_ttl_ms: millis(cluster.lease_ttl_s),
        grace_ms: millis(cluster.grace_s),
        starve_ms: millis(cluster.starve_s),
        form_ms: millis(cluster.form_s),
        restore_ms: millis(cluster.restore_s),
        unit_ms: millis(cluster.unit_s),
        score_ms: millis(cluster.score_s),
        update_ms: millis(cluster.update_s),
        apply_ms: millis(cluster.apply_s),
        checkpoint_ms: millis(checkpoint_s),
    }
}

/// Whole milliseconds of a validated (finite, positive) number of seconds.
#[must_use]
pub fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0).round() as Millis
}
