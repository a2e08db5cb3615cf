//! The data sets that the run uses, and whether the run fits its devices.

use medevo_common::{
    config::{RunConfig, WorkerDevice},
    dataset::{Dataset, load_checked},
};
use medevo_memory::Place;
use medevo_types::probe::Probe;

use super::Finding;
use crate::{
    budget::{Device, Verdict, Workload},
    driver::data_in_use,
};

/// Every data set in use, with every image decoded; then the memory of a worker.
pub(super) fn findings(config: &RunConfig, probe: Option<&Probe>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut datasets = Vec::new();
    for name in data_in_use(config) {
        let check = format!("data.{name}");
        let Some(section) = config.data.get(&name) else {
            let found = format!("there is no [data.{name}] section");
            findings.push(Finding::failed(
                check,
                found,
                "add it, or take its name out of the stages",
            ));
            continue;
        };
        match load_checked(&name, section) {
            Ok(dataset) => {
                let found = format!(
                    "{} questions in {}, every image decoded",
                    dataset.questions.len(),
                    section.path.display()
                );
                findings.push(Finding::ok(check, found));
                datasets.push(dataset);
            }
            Err(problems) => {
                let advice = format!("`medevo-coord data check {}`", section.path.display());
                findings.push(Finding::failed(check, problems.to_string(), advice));
            }
        }
    }
    if findings.iter().all(|finding| finding.advice.is_empty()) {
        findings.extend(memory(config, &datasets, probe));
    }
    findings
}

/// Whether a worker has the memory that it needs: of a GPU what is free of the fullest, where it can be seen.
fn memory(config: &RunConfig, datasets: &[Dataset], probe: Option<&Probe>) -> Option<Finding> {
    let free = probe.and_then(|probe| probe.gpus.iter().map(|gpu| gpu.free).min());
    let device = match (config.cluster.device, free) {
        (WorkerDevice::Cuda, Some(memory)) => Some(Device { place: Place::Gpu, memory }),
        _ => Device::of(config, None, config.cluster.workers),
    }?;
    let workload = Workload::new(config, datasets, device.place).ok()?;
    let verdict = Verdict::new(&workload, Some(device));
    let words = verdict.sentences();
    Some(if verdict.fits() {
        Finding::ok("memory", words)
    } else {
        Finding::failed("memory", words, "`medevo-coord plan` shows all of it")
    })
}
