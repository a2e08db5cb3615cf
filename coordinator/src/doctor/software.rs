//! The worker's binary and its libtorch, as the binary itself sees them.

use std::{process::Stdio, time::Duration};

use anyhow::Context;
use medevo_types::probe::Probe;
use tokio::{process::Command, time::timeout};

use super::Finding;
use crate::launch::find_worker_binary;

/// How long the worker's binary may take; loading CUDA takes some seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks the worker's binary what there is.
///
/// # Errors
/// It is not there, or cannot run here.
pub async fn probe() -> anyhow::Result<Probe> {
    let binary = find_worker_binary()?;
    let shown = binary.display();
    let mut command = Command::new(&binary);
    command.arg("probe").env("RUST_LOG", "error").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output())
        .await
        .with_context(|| {
            format!("{shown} has not said within {} s what there is", PATIENCE.as_secs())
        })?
        .with_context(|| format!("{shown} cannot be started"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{shown} does not run here ({}): {}",
        output.status,
        complaint.trim()
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("{shown} is of another version"))
}

/// Binary, versions.
pub(super) fn findings(probed: &anyhow::Result<Probe>) -> Vec<Finding> {
    let probe = match probed {
        Ok(probe) => probe,
        Err(error) => {
            return vec![Finding::failed(
                "worker",
                format!("{error:#}"),
                "build it beside medevo-coord (`make build`), and set this machine up with `ops/setup`",
            )];
        }
    };
    vec![worker(probe), libtorch(probe)]
}

fn worker(probe: &Probe) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let found = format!("medevo-worker {} runs on {}", probe.version, probe.host);
    if probe.version == ours {
        return Finding::ok("worker", found);
    }
    Finding::failed(
        "worker",
        format!("{found}, and this is medevo-coord {ours}"),
        "install both of one build",
    )
}

fn libtorch(probe: &Probe) -> Finding {
    let wanted = &probe.torch_wanted;
    match &probe.torch {
        Some(found) if found.split('+').next() == Some(wanted) => {
            Finding::ok("libtorch", found.clone())
        }
        Some(found) => Finding::failed(
            "libtorch",
            format!("{found} is loaded and {wanted} is needed"),
            "run `ops/setup`, and take other libtorches out of LD_LIBRARY_PATH",
        ),
        None => Finding::warning(
            "libtorch",
            "it is loaded, and its version cannot be told: there is no version.py beside it",
            format!("make sure that it is {wanted}"),
        ),
    }
}
