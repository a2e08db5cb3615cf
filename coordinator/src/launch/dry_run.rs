//! What a run would do, for `--dry-run`.

use std::{fmt::Write, path::Path};

use medevo_common::config::RunConfig;
use medevo_core::api::{EvalPass, StageKind};

use crate::driver::Plan;

/// The resolved plan in a few lines: stages with their steps and data, workers, places.
#[must_use]
pub fn describe(config: &RunConfig, plan: &Plan, run_dir: &Path, workers: usize) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    line(format!("run        {} (seed {})", config.run.name, config.run.seed));
    line(format!("directory  {}", run_dir.display()));
    line(format!("model      {}", config.model.path.display()));
    if let Some(lora) = &config.lora {
        line(format!(
            "adapters   rank {}, alpha {}, on {}",
            lora.rank,
            lora.alpha,
            lora.targets.join(", ")
        ));
    }
    line(format!(
        "workers    {} here; goes on with {} or more, up to {}",
        workers, config.cluster.min_workers, config.cluster.max_workers
    ));
    let secured = match &config.cluster.certificates {
        Some(directory) => format!("TLS with the certificates in {}", directory.display()),
        None => "not encrypted".to_owned(),
    };
    line(format!("listen     {}, {secured}", config.cluster.listen));
    if let Some(url) = &config.checkpoint.copy_to {
        line(format!("copies     {url}/{} (not tried by a dry run)", config.run.name));
    }
    let mut first = 1;
    for (index, stage) in plan.spec.stages.iter().enumerate() {
        let number = index + 1;
        let name = &stage.name;
        match &stage.kind {
            StageKind::Sft { samples, batch, steps, .. } => {
                line(format!(
                    "stage {number}    {name}: sft, steps {first} to {}, {batch} of {samples} examples a step",
                    first + steps - 1
                ));
                first += steps;
            }
            StageKind::Rl {
                samples,
                questions,
                extra_rounds,
                steps,
                sampling,
                objective,
                evaluate_every,
                passes,
                ..
            } => {
                let iterations = objective.num_iterations;
                let each = if iterations > 1 { "rollout" } else { "step" };
                line(format!(
                    "stage {number}    {name}: rl, steps {first} to {}, {questions} of {samples} questions \
                     a {each}, {} candidates each",
                    first + steps - 1,
                    sampling.n
                ));
                if iterations > 1 {
                    let rollouts = steps.div_ceil(iterations);
                    line(format!("           {iterations} steps a rollout, {rollouts} rollouts"));
                }
                if *extra_rounds > 0 {
                    line(format!(
                        "           dynamic sampling: up to {extra_rounds} further rounds of questions a \
                         rollout"
                    ));
                }
                if *evaluate_every > 0 {
                    line(format!("           every {evaluate_every} steps: {}", list(passes)));
                }
                first += steps;
            }
            StageKind::Evaluate { passes } => {
                line(format!("stage {number}    {name}: evaluate {}", list(passes)));
            }
        }
    }
    text.trim_end().to_owned()
}

fn list(passes: &[EvalPass]) -> String {
    let words: Vec<String> =
        passes.iter().map(|pass| format!("{} ({} questions)", pass.name, pass.samples)).collect();
    words.join(", ")
}
