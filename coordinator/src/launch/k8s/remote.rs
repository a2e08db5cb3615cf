//! A run on Kubernetes, seen and stopped from outside: `k8s:RUN`, `k8s:NAMESPACE/RUN`.

use std::{fmt, path::Path, time::Duration};

use medevo_common::config::is_object_name;
use serde_json::Value;

use super::kubectl::{ANSWER, Kubectl};
use crate::{launch::Exit, preflight::Refused, say::say};

/// How long the workers' pods may take to go, beyond their grace.
const GOING: Duration = Duration::from_secs(60);

/// A run on the cluster of kubectl's current context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its namespace; `None`: the context's.
    pub namespace: Option<String>,
    /// Its name.
    pub run: String,
}

/// Whose logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The whole run's.
    All,
    /// The coordinator's and its standbys'.
    Coordinator,
    /// One worker's, by its number.
    Worker(usize),
}

impl Target {
    /// The run that is named where a run directory could stand; None where that is one.
    ///
    /// # Errors
    /// [`Refused`]: it is meant for Kubernetes, but no name.
    #[must_use]
    pub fn of(path: &Path) -> Option<Result<Self, Refused>> {
        let name = path.to_str()?.strip_prefix("k8s:")?;
        let (namespace, run) = match name.split_once('/') {
            Some((namespace, run)) => (Some(namespace.to_owned()), run),
            None => (None, name),
        };
        let good = |name: &str| is_object_name(name, 63);
        if !good(run) || !namespace.as_deref().is_none_or(good) {
            let shown = path.display();
            return Some(Err(Refused::new(format!(
                "{shown} names no run on Kubernetes; write k8s:RUN or k8s:NAMESPACE/RUN"
            ))));
        }
        Some(Ok(Self { namespace, run: run.to_owned() }))
    }

    /// What all objects of the run are labelled with.
    pub(super) fn selector(&self) -> String {
        format!("app.kubernetes.io/name=medevo,app.kubernetes.io/instance={}", self.run)
    }

    fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.namespace.clone())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "k8s:{namespace}/{}", self.run),
            None => write!(f, "k8s:{}", self.run),
        }
    }
}

/// Whether a Job has come to its end, good or bad.
pub(super) fn has_ended(job: &Value) -> bool {
    condition(job, "Complete").or(condition(job, "Failed")).is_some()
}

/// The message of a condition that holds.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let holds = |c: &&Value| c["type"] == kind && c["status"] == "True";
    conditions.iter().find(holds).map(|c| c["message"].as_str().unwrap_or_default())
}

/// Prints where a run stands: its pods, and what its coordinator says. `json`: only that, as it is.
///
/// # Errors
/// [`Refused`]: there is no such run. Otherwise what kubectl said.
pub async fn status(target: Target, json: bool) -> anyhow::Result<Exit> {
    let kubectl = target.kubectl();
    let selector = target.selector();
    let pods = items(kubectl.json(&["get", "pods", "--selector", &selector]).await?);
    let jobs = items(kubectl.json(&["get", "jobs", "--selector", &selector]).await?);
    if pods.is_empty() && jobs.is_empty() {
        return Err(Refused::new(format!(
            "there is no run {target} on the cluster; see its directory on the claim, or start it with `medevo-coord \
             launch RUN.toml --on k8s`"
        ))
        .into());
    }
    if !json {
        pods.iter().for_each(|pod| say(pod_line(pod)));
        jobs.iter().filter_map(job_line).for_each(say);
    }
    let Some(coordinator) = pods.iter().find(|pod| leads(pod)) else {
        if json {
            anyhow::bail!("no coordinator of {target} runs, so nobody can read its status file");
        }
        say("no coordinator runs; its last words: kubectl logs with the pod's name from above");
        return Ok(Exit::Done);
    };
    let directory = format!("/runs/{}", target.run);
    let mut arguments = vec![
        "exec",
        name(coordinator),
        "-c",
        "coordinator",
        "--",
        "medevo-coord",
        "status",
        &directory,
    ];
    if json {
        arguments.push("--json");
    }
    let said = kubectl.run(&arguments, None, ANSWER).await?;
    say(said.trim_end());
    Ok(Exit::Done)
}

/// Shows what the run's containers have written, each line with its pod's name; only from a moment on (RFC 3339), if one
/// is given.
///
/// # Errors
/// kubectl cannot be started.
pub async fn logs(
    target: Target,
    whose: Whose,
    since: Option<&str>,
    follow: bool,
) -> anyhow::Result<Exit> {
    let mut selector = target.selector();
    match whose {
        Whose::All => {}
        Whose::Coordinator => selector += ",app.kubernetes.io/component=coordinator",
        Whose::Worker(number) => {
            selector += &format!(
                ",app.kubernetes.io/component=worker,batch.kubernetes.io/job-completion-index={number}"
            );
        }
    }
    let since = since.map(|moment| format!("--since-time={moment}"));
    let mut arguments =
        vec!["logs", "--selector", &selector, "--prefix", "--tail=-1", "--max-log-requests=1000"];
    arguments.extend(since.as_deref());
    if follow {
        arguments.push("--follow");
    }
    Ok(if target.kubectl().show(&arguments).await? { Exit::Done } else { Exit::Failed })
}

/// Stops a run: its coordinator finishes the step and writes a checkpoint while the workers are still there, then they
/// go. `launch` goes on with it.
///
/// # Errors
/// [`Refused`]: there is no such run. Otherwise what kubectl said.
pub async fn stop(target: Target) -> anyhow::Result<Exit> {
    let kubectl = target.kubectl();
    let jobs = items(kubectl.json(&["get", "jobs", "--selector", &target.selector()]).await?);
    if jobs.is_empty() {
        return Err(Refused::new(format!("there is no run {target} on the cluster")).into());
    }
    if jobs.iter().all(has_ended) {
        jobs.iter().filter_map(job_line).for_each(say);
        say("nothing to stop; its pods and their logs are left");
        return Ok(Exit::Done);
    }
    for kind in ["coordinator", "workers"] {
        let job = format!("{}-{kind}", target.run);
        let grace = jobs.iter().find(|found| name(found) == job).map(|found| {
            let pod = &found["spec"]["template"]["spec"];
            Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
        });
        let Some(grace) = grace else { continue };
        let limit = grace + GOING;
        say(format!("stopping {job}, up to {} s", limit.as_secs()));
        let timeout = format!("--timeout={}s", limit.as_secs());
        let arguments = ["delete", "job", &job, "--cascade=foreground", "--wait=true", &timeout];
        kubectl.run(&arguments, None, limit + ANSWER).await?;
    }
    say(format!(
        "run {} is stopped; `medevo-coord launch RUN.toml --on k8s` goes on with it",
        target.run
    ));
    Ok(Exit::Done)
}

/// The elements of a list.
pub(super) fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Object(mut list) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether it is a coordinator's pod that runs.
fn leads(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app.kubernetes.io/component"] == "coordinator"
        && pod["status"]["phase"] == "Running"
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// A pod in a line: name, phase, node, and why it does not run.
fn pod_line(pod: &Value) -> String {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let phase = match (&pod["metadata"]["deletionTimestamp"], condition(pod, "Ready")) {
        (Value::String(_), _) => "Terminating".to_owned(),
        (_, Some(_)) => "Ready".to_owned(),
        _ => text(&status["phase"]),
    };
    let state = &status["containerStatuses"][0]["state"];
    let code = state["terminated"]["exitCode"].as_i64().map(|code| format!("exit code {code}"));
    let unscheduled = || {
        let conditions = status["conditions"].as_array()?;
        let waits = |c: &&Value| c["type"] == "PodScheduled" && c["status"] == "False";
        conditions.iter().find(waits).map(|c| text(&c["message"]))
    };
    let why = state["waiting"]["reason"].as_str().map(str::to_owned);
    let why = code.or(why).or_else(unscheduled).unwrap_or_default();
    let node = text(&pod["spec"]["nodeName"]);
    format!("{:<36} {phase:<12} {node:<20} {why}", name(pod)).trim_end().to_owned()
}

/// How a Job ended, if it has.
fn job_line(job: &Value) -> Option<String> {
    let ended = condition(job, "Complete").map(|_| "complete".to_owned());
    let ended = ended.or_else(|| condition(job, "Failed").map(|why| format!("failed: {why}")))?;
    Some(format!("job {}: {ended}", name(job)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_directory_is_no_target_and_a_bad_name_is_refused() {
        let of = |text: &str| Target::of(Path::new(text));
        assert!(of("runs/demo").is_none());
        let target = of("k8s:medevo/demo").expect("meant").expect("good");
        assert_eq!(target.to_string(), "k8s:medevo/demo");
        assert_eq!(of("k8s:demo").expect("meant").expect("good").namespace, None);
        for bad in ["k8s:", "k8s:/demo", "k8s:a/b/c", "k8s:Demo", "k8s:a b", "k8s:--all"] {
            assert!(of(bad).expect("meant").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_that_waits_says_what_for() {
        let pod = json!({
            "metadata": {"name": "demo-workers-0-x"}, "spec": {},
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
            ]},
        });
        assert!(pod_line(&pod).contains("Insufficient nvidia.com/gpu"), "{}", pod_line(&pod));
        let ended = json!({
            "metadata": {"name": "p"}, "spec": {"nodeName": "a"},
            "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]},
        });
        assert!(pod_line(&ended).contains("exit code 2"), "{}", pod_line(&ended));
    }
}
