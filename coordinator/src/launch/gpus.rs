//! One worker for each GPU of this machine.

use medevo_common::config::WorkerDevice;

use crate::{doctor, preflight::Refused};

/// How many workers to start here: the number that was typed (flag or run file), else on GPUs one for each. None: the
/// run file's default.
///
/// # Errors
/// [`Refused`]: workers on GPUs are asked for, and there are none, or fewer.
pub(super) async fn for_workers(
    device: WorkerDevice,
    typed: Option<usize>,
) -> anyhow::Result<Option<usize>> {
    if device == WorkerDevice::Cpu || typed == Some(0) {
        return Ok(typed);
    }
    let probe = doctor::probe().await.map_err(Refused::because)?;
    let there = probe.gpus.len();
    if there == 0 {
        let why = probe.no_gpu.unwrap_or_default();
        return Err(Refused::new(format!(
            "cluster.device is \"cuda\", and libtorch sees no GPU on this machine ({}); `medevo-coord doctor` says more; \
             --set cluster.device=cpu runs without one, --workers 0 waits for workers from elsewhere",
            why.lines().next().unwrap_or_default()
        ))
        .into());
    }
    match typed {
        Some(workers) if workers > there => Err(Refused::new(format!(
            "{workers} workers need a GPU each, and libtorch sees {there} on this machine; --workers {there}, or let \
             others join from elsewhere"
        ))
        .into()),
        Some(workers) => Ok(Some(workers)),
        None => Ok(Some(there)),
    }
}
