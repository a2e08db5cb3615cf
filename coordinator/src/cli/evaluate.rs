//! `evaluate`: a run with one evaluate stage.

use std::{collections::BTreeMap, env, path::absolute};

use medevo_common::config::{
    CheckpointSection, ClusterSection, DataSection, EngineSection, EvaluateStage, ModelSection,
    RunConfig, RunSection, StageSection, StoreSection,
};
use medevo_types::settings::{Dtype, TrainSettings};

use super::arguments::Evaluate;
use crate::{
    launch::{self, Exit, Start},
    preflight::Refused,
    run_dir::{EvaluationRecord, RunDir, now_ms},
    say::say,
};

/// Starts the run and prints its figures.
pub(super) async fn evaluate(arguments: Evaluate) -> anyhow::Result<Exit> {
    let run_dir = match arguments.run_dir {
        Some(dir) => dir,
        None => {
            env::temp_dir().join(format!("medevo-evaluate-{}-{}", now_ms(), std::process::id()))
        }
    };
    let workers = usize::from(arguments.workers);
    const NAME: &str = "data";
    let data = DataSection {
        path: absolute(&arguments.data).map_err(Refused::because)?,
        format: arguments.format.into(),
        split: arguments.split,
        language: arguments.language,
        limit: arguments.limit,
    };
    let stage = EvaluateStage {
        name: "evaluate".into(),
        data: vec![NAME.into()],
        majority_n: arguments.majority,
        max_new_tokens: arguments.max_new_tokens,
    };
    let config = RunConfig {
        run: RunSection { name: "evaluate".into(), seed: arguments.seed, dir: None },
        model: ModelSection {
            path: absolute(&arguments.model).map_err(Refused::because)?,
            dtype: Dtype::F32,
            freeze_vision: false,
        },
        data: BTreeMap::from([(NAME.into(), data)]),
        stage: vec![StageSection::Evaluate(stage)],
        cluster: ClusterSection {
            // Nobody else is waited for.
            max_workers: workers,
            ..ClusterSection::default()
        },
        store: StoreSection::default(),
        checkpoint: CheckpointSection::default(),
        engine: EngineSection::default(),
        train: TrainSettings::default(),
        lora: None,
    };
    let exit =
        launch::start(config, Some(workers), Some(run_dir.clone()), Start::default()).await?;
    if exit == Exit::Done {
        for record in RunDir::open(&run_dir)?.read_evaluations()? {
            say(figures(&record));
        }
    }
    Ok(exit)
}

fn figures(record: &EvaluationRecord) -> String {
    let percent = |interval: &medevo_text::Interval| {
        let [mean, low, high] =
            [interval.mean, interval.low, interval.high].map(|share| share * 100.0);
        format!("{mean:.1} [{low:.1}, {high:.1}]")
    };
    format!(
        "{}: n {}, accuracy {}, recall {}, F1 {}, closed {} (n {}), open {} (n {}); percent with 95 % \
         intervals, protocol {}",
        record.pass,
        record.n,
        percent(&record.accuracy),
        percent(&record.recall),
        percent(&record.f1),
        percent(&record.closed.accuracy),
        record.closed.n,
        percent(&record.open.accuracy),
        record.open.n,
        record.protocol.name(),
    )
}
