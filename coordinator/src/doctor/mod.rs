//! `doctor`: does a run find what it needs here? One check a file, each giving lines of findings.

mod copies;
mod data;
mod directory;
mod finding;
mod gpus;
mod meeting;
mod model;
mod network;
mod nodes;
mod software;
mod store;

use std::{path::Path, time::Duration};

use medevo_common::config::{RunConfig, ValidConfig};

pub use finding::{Finding, Grade, table};
pub use software::probe;

/// What the machines of a cluster are asked about.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// How many are waited for.
    pub number: usize,
    /// Where they reach this one.
    pub address: Option<String>,
    /// How long they are waited for.
    pub patience: Duration,
}

/// Checks this machine, and what the run needs if there is one. `place` is its directory, which need not be there.
pub async fn examine(run: Option<(&RunConfig, &Path)>, nodes: &Nodes) -> Vec<Finding> {
    let probed = probe().await;
    let mut findings = software::findings(&probed);
    let Some((config, place)) = run else {
        findings.extend(gpus::findings(&probed, None));
        return findings;
    };
    findings.extend(gpus::findings(&probed, Some(config)));
    findings.push(model::finding(config));
    findings.extend(data::findings(config, probed.as_ref().ok()));
    findings.extend(directory::findings(config, place));
    match config.clone().validate() {
        Ok(valid) => findings.extend(valid_run(&valid, place, nodes).await),
        Err(problems) => findings.push(Finding::failed(
            "run file",
            format!("{problems:#}"),
            "change these keys; docs/config.md explains each",
        )),
    }
    findings
}

async fn valid_run(config: &ValidConfig, place: &Path, nodes: &Nodes) -> Vec<Finding> {
    let mut findings = vec![store::finding(config, place).await];
    findings.extend(copies::finding(config).await);
    findings.extend(network::findings(config, nodes.number).await);
    if nodes.number > 0 {
        findings.extend(nodes::findings(config, place, nodes).await);
    }
    findings
}
