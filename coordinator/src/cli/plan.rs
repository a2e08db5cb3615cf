//! `plan`: what a run needs, before it is started.

use medevo_common::{
    config::RunConfig,
    dataset::{Dataset, load},
};
use medevo_memory::Place;

use super::arguments::Plan;
use crate::{
    budget::{Device, Verdict, Workload},
    driver::data_in_use,
    launch::Exit,
    preflight::Refused,
    say::say,
};

/// Prints the plan; one that does not fit is bad input.
pub(super) fn plan(arguments: Plan) -> anyhow::Result<Exit> {
    let mut config = RunConfig::load(&arguments.file, &arguments.set).map_err(Refused::because)?;
    if let Some(workers) = arguments.workers.filter(|workers| *workers > 0) {
        config.cluster.workers = workers;
    }
    let config = config.validate().map_err(Refused::because)?;
    let mut datasets: Vec<Dataset> = Vec::new();
    for name in data_in_use(&config) {
        let section = config.data.get(&name).ok_or_else(|| {
            Refused::new(format!("the data set `{name}` has no [data.{name}] section"))
        })?;
        datasets.push(load(&name, section).map_err(Refused::because)?);
    }
    let device = Device::of(&config, arguments.device_memory, config.cluster.workers);
    let place = device.map_or(Place::Cpu, |device| device.place);
    let verdict = Verdict::new(&Workload::new(&config, &datasets, place)?, device);
    if arguments.json {
        say(serde_json::to_string_pretty(&verdict)?);
    } else {
        say(&verdict);
    }
    Ok(if verdict.fits() { Exit::Done } else { Exit::BadInput })
}
