//! `status`, `logs`, `drain` and `stop` of a run on Kubernetes (`k8s:RUN`).

use super::{attended, operator};
use crate::{
    launch::{
        Exit, remote,
        remote::{Target, Whose},
    },
    preflight::Refused,
};

/// Where the run stands.
pub(super) fn status(target: Target, asked: &operator::Status) -> anyhow::Result<Exit> {
    if asked.watch.is_some() {
        return Err(Refused::new(format!(
            "--watch needs a run directory; `watch medevo-coord status {target}` looks again and again"
        ))
        .into());
    }
    attended(remote::status(target, asked.json))
}

/// What its containers have written.
pub(super) fn logs(target: Target, asked: &operator::Logs) -> anyhow::Result<Exit> {
    let whose = match asked.worker.as_deref() {
        None => Whose::All,
        Some("coordinator") => Whose::Coordinator,
        Some(name) => {
            let number = name.trim_start_matches(['w', '-']).parse();
            Whose::Worker(number.map_err(|_| {
                Refused::new(format!(
                    "workers of {target} are named w-0, w-1 and so on, not {name}"
                ))
            })?)
        }
    };
    attended(remote::logs(target, whose, asked.since.as_deref(), asked.follow))
}

/// Stops after the current step, with a checkpoint: what Kubernetes does to a Job that is deleted.
pub(super) fn drain(target: Target, asked: &operator::Drain) -> anyhow::Result<Exit> {
    if asked.no_wait {
        return Err(Refused::new(format!(
            "a drain of {target} is waited for; leave --no-wait out"
        ))
        .into());
    }
    attended(remote::stop(target))
}

/// The same; the pods' grace bounds it.
pub(super) fn stop(target: Target, asked: &operator::Stop) -> anyhow::Result<Exit> {
    if asked.now {
        return Err(Refused::new(format!(
            "--now needs a run directory; `kubectl delete pods --force` with the names that `medevo-coord status {target}` \
             prints ends its pods at once"
        ))
        .into());
    }
    attended(remote::stop(target))
}
