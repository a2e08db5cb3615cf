//! A run on Kubernetes: the manifests of k8s/ with an overlay for this run, built and applied by kubectl.

mod kubectl;
mod manifests;
mod overlay;
pub mod remote;
mod settle;
mod wait;

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use medevo_common::config::{K8sSection, ValidConfig};

use self::{
    kubectl::{ANSWER, Kubectl},
    remote::Target,
};
use super::{Exit, Run};
use crate::{preflight::Refused, say::say};

/// Starts a run on the cluster of kubectl's current context, or goes on with one whose pods have ended.
///
/// # Errors
/// As [`super::launch`].
pub(super) async fn there(run: Run) -> anyhow::Result<Exit> {
    let (config, k8s) = settle::settle(&run)?;
    let kubectl = Kubectl::new(k8s.namespace.clone());
    let rendered = render(&config, &k8s, &kubectl).await?;
    if run.dry_run {
        say(rendered.trim_end());
        return Ok(Exit::Done);
    }
    let target = Target { namespace: k8s.namespace.clone(), run: config.run.name.clone() };
    clear(&kubectl, &target).await?;
    let applied = kubectl.run(&["apply", "-f", "-"], Some(&rendered), ANSWER * 2).await?;
    say(applied.trim_end());
    say(format!(
        "run {name}: a coordinator and {workers} workers. Watch it:  medevo-coord status {target}\n\
         If it has begun before, it goes on as it was started: /runs/{name}/run.toml counts.",
        name = config.run.name,
        workers = config.cluster.workers,
    ));
    if run.wait { wait::wait(&kubectl, &target).await } else { Ok(Exit::Done) }
}

/// The objects of this run, as YAML.
async fn render(
    config: &ValidConfig,
    k8s: &K8sSection,
    kubectl: &Kubectl,
) -> anyhow::Result<String> {
    let folder = Folder::new()?;
    for (path, text) in manifests::FILES {
        folder.write(path, text)?;
    }
    let run_file =
        toml::to_string_pretty(&**config).context("the run file cannot be written out")?;
    folder.write("run/run.toml", &run_file)?;
    let overlay = serde_json::to_string_pretty(&overlay::kustomization(config, k8s))
        .context("encoding the overlay")?;
    folder.write("run/kustomization.yaml", &overlay)?;
    let run = folder.0.join("run");
    kubectl.run(&["kustomize", &run.to_string_lossy()], None, ANSWER).await
}

/// Takes ended Jobs of an earlier start away: a Job's template cannot be changed.
///
/// # Errors
/// [`Refused`]: the run is going on.
async fn clear(kubectl: &Kubectl, target: &Target) -> anyhow::Result<()> {
    let selector = target.selector();
    let jobs =
        kubectl.json(&["get", "jobs", "--selector", &selector]).await.map_err(Refused::because)?;
    let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
    let going_on = |job: &&serde_json::Value| !remote::has_ended(job);
    if let Some(job) = jobs.iter().find(going_on) {
        return Err(Refused::new(format!(
            "run {} is on the cluster already (Job {} has not ended); see `medevo-coord status {target}`, or stop it \
             first",
            target.run,
            job["metadata"]["name"].as_str().unwrap_or_default(),
        ))
        .into());
    }
    if !jobs.is_empty() {
        let arguments = ["delete", "jobs", "--selector", &selector, "--wait=true", "--timeout=60s"];
        kubectl.run(&arguments, None, ANSWER * 3).await?;
    }
    Ok(())
}

/// A folder of this process, gone with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "medevo-k8s-{}-{}",
            std::process::id(),
            crate::run_dir::now_ms()
        ));
        // A folder that somebody else has put there is not taken.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is no secret, and small.
        let _ = fs::remove_dir_all(&self.0);
    }
}
