//! Whether this coordinator may still act (INV-8).
//!
//! The lease is looked at by this process's own clock before anything is done, so a coordinator that was stopped, or
//! cut off from its store, does nothing after somebody else may have taken over. What goes into the store is guarded by
//! the term besides.

use std::time::{Duration, Instant};

use anyhow::Context;
use medevo_core::Outcome;
use tokio::task::spawn_blocking;

use crate::leadership::{Lapse, Lead};

/// How long a store that is away is asked again before the run is given up.
pub(super) const OUTAGE: Duration = Duration::from_secs(120);
/// Pause between two tries.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// Why a driver acts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// Another coordinator leads: not a word to anybody, the workers find it by themselves.
    Deposed(String),
    /// Somebody asked for it.
    Stopped(String),
    /// Something broke: the run has failed.
    Broken(String),
}

impl Halt {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Deposed(reason) | Self::Stopped(reason) | Self::Broken(reason) => reason,
        }
    }

    /// How the run has ended, as far as this coordinator goes.
    pub(super) fn outcome(&self) -> Outcome {
        let reason = self.reason().to_owned();
        match self {
            Self::Stopped(_) => Outcome::Stopped { reason },
            Self::Deposed(_) | Self::Broken(_) => Outcome::Failed { reason },
        }
    }
}

/// The lead, and what to do once it has lapsed.
pub(super) struct Authority(Option<Lead>);

impl Authority {
    pub(super) fn new(lead: Lead) -> Self {
        Self(Some(lead))
    }

    /// Whether nobody else can have taken over yet.
    pub(super) fn holds(&self) -> bool {
        self.0.as_ref().is_some_and(Lead::holds)
    }

    /// Takes a lapsed lead up again, waiting for a store that is away.
    pub(super) async fn regain(&mut self) -> Result<(), Halt> {
        let until = Instant::now() + OUTAGE;
        loop {
            let Some(mut lead) = self.0.take() else {
                return Err(Halt::Broken("taking the lead up again broke off".to_owned()));
            };
            let tried = spawn_blocking(move || {
                let outcome = lead.regain();
                (lead, outcome)
            });
            let (lead, outcome) = tried
                .await
                .context("taking the lead up again broke off")
                .map_err(|error| Halt::Broken(format!("{error:#}")))?;
            self.0 = Some(lead);
            match outcome {
                Ok(()) => return Ok(()),
                Err(lapse @ Lapse::Deposed) => return Err(Halt::Deposed(lapse.to_string())),
                Err(Lapse::Unknown(error)) if error.is_passing() && Instant::now() < until => {
                    tracing::warn!("the run waits for its store: {error}");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(Lapse::Unknown(error)) => return Err(Halt::Broken(error.to_string())),
            }
        }
    }
}
