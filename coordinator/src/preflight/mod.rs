//! Everything that can be refused before anything is made or started.
//!
//! What only a worker can see (the names and shapes of the model's tensors, prompts longer than the limit)
//! comes later, as the sentence of a worker's failure, before the first update.

mod adapter;
mod model;
mod refused;

use std::path::Path;

use medevo_common::{config::RunConfig, dataset::load_checked};

use crate::driver::{Plan, data_in_use, resolve};

pub use model::check_model;
pub use refused::Refused;

/// Checks the model directory and the data of a validated run file, all problems at once, and resolves
/// the run. Every image in use is decoded.
///
/// # Errors
/// [`Refused`], with every problem.
pub fn check(config: &RunConfig, run_dir: &Path) -> Result<Plan, Refused> {
    let mut problems = Vec::new();
    if let Err(problem) = check_model(&config.model.path) {
        problems.push(problem.to_string());
    }
    problems.extend(adapter::cannot_train(config));
    let mut datasets = Vec::new();
    for name in data_in_use(config) {
        let Some(section) = config.data.get(&name) else {
            problems.push(format!("the data set `{name}` has no [data.{name}] section"));
            continue;
        };
        match load_checked(&name, section) {
            Ok(dataset) => datasets.push(dataset),
            Err(found) => problems.push(found.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(Refused::new(problems.join("\n")));
    }
    resolve(config, &datasets, &run_dir.join("checkpoints")).map_err(Refused::because)
}
