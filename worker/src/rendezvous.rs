//! The rendezvous of a forming communicator, served by the coordinator.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use medevo_collective::Rendezvous;
use medevo_rpc::Client;
use medevo_types::WorkerTag;
use tokio::runtime::Handle;

/// Longest wait for an answer to a set or an add; a get has its own deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls from the engine thread, made on the agent's runtime and connection.
pub(crate) struct OverRpc {
    pub runtime: Handle,
    pub client: Arc<Client>,
    pub from: WorkerTag,
}

impl OverRpc {
    /// One look at a key; the coordinator waits up to two seconds for somebody to set it.
    fn look(&self, key: &str, patience: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        let answer =
            self.runtime.block_on(self.client.rendezvous_get(&self.from, key, patience))?;
        Ok(answer.with_context(|| format!("rendezvous key {key}"))?.map(|value| value.into_vec()))
    }
}

impl Rendezvous for OverRpc {
    fn set(&self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let call = self.client.rendezvous_set(&self.from, key, value, PATIENCE);
        self.runtime.block_on(call)?.with_context(|| format!("rendezvous key {key}"))
    }

    fn get(&self, key: &str, deadline: Instant) -> anyhow::Result<Vec<u8>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "nobody set the rendezvous key {key} in time: a rank of the roster did not come"
                );
            }
            // The last look may end a little late; cut short, it would say that the coordinator is gone.
            if let Some(value) = self.look(key, left.max(PATIENCE))? {
                return Ok(value);
            }
        }
    }

    fn add(&self, key: &str, delta: i64) -> anyhow::Result<i64> {
        let call = self.client.rendezvous_add(&self.from, key, delta, PATIENCE);
        self.runtime.block_on(call)?.with_context(|| format!("rendezvous counter {key}"))
    }

    // The service has no call that does not wait: a missing key costs the coordinator's two seconds.
    fn check(&self, keys: &[&str]) -> anyhow::Result<bool> {
        for key in keys {
            if self.look(key, PATIENCE)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
