//! Everything that can be refused before anything is made or started.
//!
//! What only a worker can see (the names and shapes of the model's tensors, prompts longer than the limit)
//! comes later, as the sentence of a worker's failure, before the first update.

mod adapter;
mod model;
mod refused;

use std::path::Path;

use medevo_common::{
    config::RunConfig,
    dataset::{Dataset, load_checked},
};

use crate::{
    budget::{Device, Verdict, Workload},
    driver::{Plan, data_in_use, resolve},
};

pub use adapter::base_of;
pub use model::check_model;
pub use refused::Refused;

/// Checks the model directory and the data of a validated run file, all problems at once, and resolves
/// the run. Every image in use is decoded. With a number of workers on this machine, a run that needs more
/// memory than a worker has is refused too.
///
/// # Errors
/// [`Refused`], with every problem.
pub fn check(
    config: &RunConfig,
    run_dir: &Path,
    fits_workers: Option<usize>,
) -> Result<Plan, Refused> {
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
    if let Some(local) = fits_workers {
        check_memory(config, &datasets, local)?;
    }
    resolve(config, &datasets, &run_dir.join("checkpoints")).map_err(Refused::because)
}

/// Refuses a run that does not fit its workers' devices, with what would help. A device or a model that nothing is
/// known of is no reason: the workers will say more.
fn check_memory(config: &RunConfig, datasets: &[Dataset], local: usize) -> Result<(), Refused> {
    let Some(device) = Device::of(config, None, local) else { return Ok(()) };
    let Ok(workload) = Workload::new(config, datasets, device.place) else { return Ok(()) };
    let verdict = Verdict::new(&workload, Some(device));
    if verdict.fits() {
        return Ok(());
    }
    Err(Refused::new(format!(
        "the run {}\nSee `medevo-coord plan` for all of it; --ignore-memory starts the run all the same",
        verdict.sentences()
    )))
}
