//! Other machines: each runs `medevo-worker probe --meet DIR`, which finds the doctor through the shared file system
//! and leaves there what it has seen.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use medevo_common::config::{ValidConfig, WorkerDevice};
use medevo_types::probe::{Link, MEETING_FILE, Meeting, Probe};
use tokio::{
    net::TcpListener,
    time::{Duration, Instant, sleep},
};

use super::{Finding, Nodes, directory::existing, meeting};
use crate::{
    rpc::Token,
    run_dir::{host, write_atomic},
    say::complain,
};

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Clocks further apart than this confuse people who read logs of several machines, milliseconds.
const SKEW: u64 = 1_000;
/// Clocks further apart than this break certificates and object stores, milliseconds.
const FAR: u64 = 60_000;
/// A network slower than this will be what a step waits for, bytes a second (1 Gbit/s less some).
const SLOW: f64 = 100e6;

/// Waits for the other machines and holds what they say against this one.
pub(super) async fn findings(config: &ValidConfig, place: &Path, nodes: &Nodes) -> Vec<Finding> {
    match meet(place, nodes).await {
        Ok(found) => judge(config, &found, nodes),
        Err(error) => vec![Finding::failed(
            "nodes",
            format!("{error:#}"),
            "the doctor needs a directory that it can write, and a free port",
        )],
    }
}

/// The meeting's directory; with it goes what lies in it.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing depends on it any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn meet(place: &Path, nodes: &Nodes) -> anyhow::Result<BTreeMap<String, Probe>> {
    // Beside the run directory, which need not be there yet and must be empty when the run begins.
    let dir = existing(place.parent().unwrap_or(place));
    let dir = std::path::absolute(dir)?.join(format!("medevo-doctor-{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("making {}", dir.display()))?;
    let dir = Place(dir);
    let listener = TcpListener::bind("0.0.0.0:0").await.context("listening")?;
    let port = listener.local_addr().context("reading the listen address")?.port();
    let address = nodes.address.clone().unwrap_or_else(host);
    let nonce = Token::fresh()?.reveal().to_owned();
    let meeting = Meeting { address: format!("{address}:{port}"), nonce: nonce.clone() };
    write_atomic(&dir.0.join(MEETING_FILE), &serde_json::to_vec(&meeting)?)?;
    let server = tokio::spawn(meeting::serve(listener, nonce));
    complain(format!(
        "waiting up to {} s for {} machine(s): run on each `medevo-worker probe --meet {}` (Slurm: srun \
         --ntasks-per-node=1)",
        nodes.patience.as_secs(),
        nodes.number,
        dir.0.display()
    ));
    let until = Instant::now() + nodes.patience;
    let found = loop {
        let found = reports(&dir.0)?;
        if found.len() >= nodes.number || Instant::now() >= until {
            break found;
        }
        sleep(LOOK).await;
    };
    server.abort();
    Ok(found)
}

fn reports(dir: &Path) -> anyhow::Result<BTreeMap<String, Probe>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == MEETING_FILE || !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let probe: Probe = serde_json::from_slice(&text)
            .with_context(|| format!("{} is of another version", path.display()))?;
        found.insert(probe.host.clone(), probe);
    }
    Ok(found)
}

fn judge(config: &ValidConfig, found: &BTreeMap<String, Probe>, nodes: &Nodes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let there: Vec<&str> = found.keys().map(String::as_str).collect();
    findings.push(if there.len() >= nodes.number {
        Finding::ok("nodes", format!("{} met here, through a shared file system", there.join(", ")))
    } else {
        Finding::failed(
            "nodes",
            format!(
                "{} of {} came ({})",
                there.len(),
                nodes.number,
                if there.is_empty() { "none".into() } else { there.join(", ") }
            ),
            "see what `medevo-worker probe` says on the others: the directory must be on a file system that all \
             share, and this machine reached by its name (else --address)",
        )
    });
    for (name, probe) in found {
        if let Some(link) = &probe.link {
            findings.extend([clock(name, link), network(name, link)]);
        }
        if config.cluster.device == WorkerDevice::Cuda && probe.gpus.is_empty() {
            let why = probe.no_gpu.clone().unwrap_or_default();
            let why = why.lines().next().unwrap_or_default().to_owned();
            findings.push(Finding::failed(
                format!("{name} GPUs"),
                format!("none: {why}"),
                "install NVIDIA's driver there and run `ops/setup --gpu`",
            ));
        }
    }
    let torches: BTreeMap<_, _> = found.values().map(|p| (&p.torch, &p.host)).collect();
    if torches.len() > 1 {
        let list =
            found.values().map(|p| format!("{}: {}", p.host, p.torch.as_deref().unwrap_or("?")));
        findings.push(Finding::failed(
            "libtorch",
            format!("not the same everywhere: {}", list.collect::<Vec<_>>().join(", ")),
            "install one version on all machines: they must compute alike",
        ));
    }
    findings
}

fn clock(name: &str, link: &Link) -> Finding {
    let (check, ahead) = (format!("{name} clock"), link.clock_ahead_ms);
    let found = format!(
        "{} ms {} this one's",
        ahead.unsigned_abs(),
        if ahead > 0 { "behind" } else { "ahead of" }
    );
    let skew = ahead.unsigned_abs();
    if skew <= SKEW {
        Finding::ok(check, found)
    } else if skew <= FAR {
        Finding::warning(check, found, "synchronise the clocks (chrony): logs mislead else")
    } else {
        let way =
            "synchronise the clocks (chrony): certificates and object stores refuse such times";
        Finding::failed(check, found, way)
    }
}

fn network(name: &str, link: &Link) -> Finding {
    let check = format!("{name} network");
    let found = format!(
        "{:.1} MB/s from {}, round trip {:.2} ms",
        link.bytes_per_s / 1e6,
        link.local,
        link.round_trip_ms
    );
    if link.bytes_per_s >= SLOW {
        return Finding::ok(check, found);
    }
    Finding::warning(
        check,
        found,
        "a step exchanges all gradients: choose a faster interface with cluster.collective_address, or [lora]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn clocks_and_networks_are_judged() {
        let link =
            |ahead, rate| Link { clock_ahead_ms: ahead, bytes_per_s: rate, ..Link::default() };
        assert_eq!(clock("a", &link(-20, 1e9)).grade, Grade::Ok);
        assert_eq!(clock("a", &link(5_000, 1e9)).grade, Grade::Warning);
        assert!(clock("a", &link(5_000, 1e9)).found.contains("behind"));
        assert_eq!(clock("a", &link(-3_600_000, 1e9)).grade, Grade::Failed);
        assert_eq!(network("a", &link(0, 1e9)).grade, Grade::Ok);
        assert_eq!(network("a", &link(0, 1e6)).grade, Grade::Warning);
    }
}
