//! Leaving a run on purpose.

use std::time::Duration;

use medevo_rpc::Client;
use medevo_types::{
    Attempt, Generation, Step, WorkerTag,
    messages::{Directive, Envelope, Report},
};
use tokio::sync::watch;

/// How long a coordinator may take to hear that a worker leaves.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whether others wait for this in a collective, or the run for its files.
pub(crate) fn awaited(directive: &Directive) -> bool {
    matches!(directive, Directive::Update(_) | Directive::Apply(_) | Directive::Checkpoint(_))
}

/// Returns when the worker is to leave; never, if nobody can ask for it any more.
pub(crate) async fn asked(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|leave| *leave).await.is_err() {
        std::future::pending().await
    }
}

/// How a worker's part in a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Why.
    pub reason: String,
    /// The run has drained: whoever resumes it needs workers.
    pub drained: bool,
}

impl Departure {
    /// It is not needed any more.
    pub(crate) fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), drained: false }
    }
}

/// Tells the coordinator that this worker leaves. One that does not hear it notices by the lease.
pub(crate) async fn farewell(client: &Client, tag: &WorkerTag) -> Departure {
    let body = Report::Leaving;
    let (generation, step, attempt) = (Generation(0), Step(0), Attempt(0));
    let envelope = Envelope { from: tag.clone(), generation, step, attempt, body };
    match client.report(&envelope, FAREWELL).await {
        Ok(Ok(())) => {}
        Ok(Err(rejection)) => tracing::debug!(%rejection, "the farewell was turned away"),
        Err(error) => tracing::warn!("the coordinator was not told: {error}"),
    }
    Departure::for_good("it was asked to leave")
}
