//! GPUs, driver, CUDA and NCCL.

use medevo_common::config::{RunConfig, WorkerDevice};
use medevo_types::probe::Probe;

use super::Finding;
use crate::budget::gibibytes;

/// A GPU of which less than this share is free is in use by somebody.
const MOSTLY_FREE: f64 = 0.9;

/// What there is, and whether the run (if there is one) gets by with it.
pub(super) fn findings(probed: &anyhow::Result<Probe>, config: Option<&RunConfig>) -> Vec<Finding> {
    // What keeps the binary from running is said elsewhere.
    let Ok(probe) = probed else { return Vec::new() };
    let wanted = config.map(|config| &config.cluster).filter(|c| c.device == WorkerDevice::Cuda);
    let mut findings = Vec::new();
    if probe.gpus.is_empty() {
        let why = probe.no_gpu.as_deref().unwrap_or("libtorch sees none");
        // The loader lists what it misses; the first line will do.
        let why = format!("none: {}", why.lines().next().unwrap_or(why));
        findings.push(match (wanted, config) {
            (Some(_), _) => Finding::failed(
                "GPUs",
                why,
                "install NVIDIA's driver and run `ops/setup --gpu`, or set cluster.device = \"cpu\"",
            ),
            (None, Some(_)) => Finding::ok("GPUs", "not needed: cluster.device is \"cpu\""),
            (None, None) => {
                Finding::warning("GPUs", why, "with a GPU: NVIDIA's driver, then `ops/setup --gpu`")
            }
        });
        return findings;
    }
    findings.push(driver(probe));
    for (number, gpu) in probe.gpus.iter().enumerate() {
        let check = format!("cuda:{number}");
        let (free, all) = (gibibytes(gpu.free), gibibytes(gpu.memory));
        let found = format!("{}, {free} of {all} free", gpu.name);
        findings.push(if gpu.free as f64 >= MOSTLY_FREE * gpu.memory as f64 {
            Finding::ok(check, found)
        } else {
            Finding::warning(
                check,
                found,
                "somebody else uses it: `nvidia-smi` shows who; CUDA_VISIBLE_DEVICES hides it from a run",
            )
        });
    }
    if let Some(cluster) = wanted {
        let (workers, there) = (cluster.workers, probe.gpus.len());
        findings.push(if workers <= there {
            Finding::ok("workers", format!("{workers}, each with a GPU of its own"))
        } else {
            Finding::failed(
                "workers",
                format!("cluster.workers is {workers} and this machine has {there} GPU(s)"),
                "one worker a GPU: `launch --workers`, or more machines",
            )
        });
    }
    findings.push(nccl(probe));
    findings
}

fn driver(probe: &Probe) -> Finding {
    let or = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".into());
    let found = format!(
        "driver {} (CUDA up to {}), libtorch's CUDA {}",
        or(&probe.driver),
        or(&probe.driver_cuda),
        or(&probe.torch_cuda)
    );
    let major = |version: &Option<String>| {
        version.as_ref().and_then(|text| text.split('.').next()?.parse::<u32>().ok())
    };
    match (major(&probe.driver_cuda), major(&probe.torch_cuda)) {
        (Some(driver), Some(torch)) if driver < torch => Finding::failed(
            "CUDA",
            found,
            "the driver is older than what libtorch was built with: install a newer driver",
        ),
        _ => Finding::ok("CUDA", found),
    }
}

fn nccl(probe: &Probe) -> Finding {
    match &probe.nccl {
        Some(version) => Finding::ok("NCCL", version.clone()),
        None if probe.gpus.len() > 1 => Finding::failed(
            "NCCL",
            "libnccl.so is not found",
            "run `ops/setup --gpu`, and build again",
        ),
        None => Finding::warning(
            "NCCL",
            "libnccl.so is not found; one worker alone needs none",
            "for more workers: run `ops/setup --gpu`, and build again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use medevo_types::probe::Gpu;

    use super::*;
    use crate::doctor::Grade;

    fn probe(driver: &str, free: u64) -> anyhow::Result<Probe> {
        Ok(Probe {
            driver_cuda: Some(driver.into()),
            torch_cuda: Some("13.0".into()),
            nccl: Some("2.28.9".into()),
            gpus: vec![Gpu { name: "GPU".into(), memory: 80 << 30, free }],
            ..Probe::default()
        })
    }

    /// No GPU is there to test with: what a machine with one says is held against what it should make of it.
    #[test]
    fn an_old_driver_and_a_gpu_in_use_are_seen() {
        let worst = |probe| findings(&probe, None).into_iter().max_by_key(|f| f.grade);
        let good = worst(probe("13.0", 79 << 30)).expect("findings");
        assert_eq!(good.grade, Grade::Ok, "{good:?}");
        let old = worst(probe("12.4", 79 << 30)).expect("findings");
        assert_eq!((old.grade, old.check.as_str()), (Grade::Failed, "CUDA"), "{old:?}");
        let used = worst(probe("13.1", 30 << 30)).expect("findings");
        assert_eq!((used.grade, used.check.as_str()), (Grade::Warning, "cuda:0"), "{used:?}");
    }
}
