//! `--wait`: staying until the run's coordinator has ended.

use std::time::Duration;

use serde_json::Value;

use super::{
    kubectl::Kubectl,
    remote::{Target, has_ended, items},
};
use crate::{
    launch::{Exit, Signals},
    say::{complain, say},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Looks in a row that may fail: a cluster's API is away for some minutes at an upgrade.
const PATIENCE: u32 = 120;

/// Waits for the coordinator's Job; its pod's exit code is the run's.
///
/// # Errors
/// The cluster has not answered for long.
pub(super) async fn wait(kubectl: &Kubectl, target: &Target) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    let mut failed = 0;
    loop {
        match look(kubectl, target).await {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => failed = 0,
            Err(error) if failed >= PATIENCE => return Err(error),
            Err(error) => {
                if failed == 0 {
                    complain(format!("{error:#}; still waiting"));
                }
                failed += 1;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            signal = signals.next() => {
                say(format!("{}: no longer waiting; the run goes on (medevo-coord status {target})", signal.by));
                return Ok(Exit::LeftAlone);
            }
        }
    }
}

/// How the run ended, once it has.
async fn look(kubectl: &Kubectl, target: &Target) -> anyhow::Result<Option<Exit>> {
    let selector = format!("{},app.kubernetes.io/component=coordinator", target.selector());
    let jobs = items(kubectl.json(&["get", "jobs", "--selector", &selector]).await?);
    let Some(job) = jobs.first() else {
        say(format!("the Job of {target}'s coordinator is gone: somebody has stopped the run"));
        return Ok(Some(Exit::Drained));
    };
    if !has_ended(job) {
        return Ok(None);
    }
    let pods = items(kubectl.json(&["get", "pods", "--selector", &selector]).await?);
    Ok(Some(outcome(&pods)))
}

/// The run's outcome: the exit code of the coordinator that ended last.
fn outcome(pods: &[Value]) -> Exit {
    let ended = |pod: &Value| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        // RFC 3339 in UTC sorts as text.
        Some((state["finishedAt"].as_str()?.to_owned(), state["exitCode"].as_i64()?))
    };
    match pods.iter().filter_map(ended).max() {
        Some((_, code)) => {
            u8::try_from(code).ok().and_then(Exit::from_code).unwrap_or(Exit::Failed)
        }
        None => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_coordinator_tells_the_outcome() {
        let pod = |at: &str, code: i64| {
            json!({"status": {"containerStatuses": [
                {"state": {"terminated": {"finishedAt": at, "exitCode": code}}}
            ]}})
        };
        let early = pod("2026-03-01T12:00:00Z", 137);
        assert_eq!(outcome(&[pod("2026-03-02T12:00:00Z", 0), early.clone()]), Exit::Done);
        assert_eq!(outcome(&[early]), Exit::Failed);
        assert_eq!(outcome(&[pod("2026-03-01T12:00:00Z", 2)]), Exit::BadInput);
        assert_eq!(outcome(&[]), Exit::Failed);
    }
}
