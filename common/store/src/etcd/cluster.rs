//! The members, one connection each, and the patience with which they are asked.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use etcd_client::Client;
use medevo_types::Backoff;

use super::{
    answer::{Answer, read},
    connect::Access,
};
use crate::{LeaseId, StoreError};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The members. It asks the one that answered last, and goes on to the next when that fails: a client that
/// balances over all of them keeps asking the dead one.
pub(super) struct Cluster {
    access: Access,
    clients: RefCell<Vec<Option<Client>>>,
    current: Cell<usize>,
}

impl Cluster {
    pub fn new(access: Access) -> Self {
        let clients = RefCell::new(vec![None; access.endpoints.len()]);
        Self { access, clients, current: Cell::new(0) }
    }

    /// As [`Cluster::call_for`], about no lease.
    pub async fn call<T, F>(
        &self,
        until: Instant,
        action: &'static str,
        send: impl FnMut(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call_for(until, action, None, send).await
    }

    /// Asks members until one answers, or `until` has come. `lease` is what a "not found" is about.
    pub async fn call_for<T, F>(
        &self,
        until: Instant,
        action: &'static str,
        lease: Option<LeaseId>,
        mut send: impl FnMut(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let started = Instant::now();
        let members = self.access.endpoints.len();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut limit = self.access.attempt;
        let mut refusals = 0;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let member = self.current.get();
            let place = &self.access.endpoints[member];
            let left = until.saturating_duration_since(Instant::now());
            // Where there is a next member, there is time left to ask it.
            let most = if members > 1 { left / 2 } else { left };
            let one = async { send(self.client(member).await?).await };
            let problem = match tokio::time::timeout(limit.min(most), one).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => match read(&error, action, place, lease, &self.access.named) {
                    Answer::Final(error) => return Err(error),
                    Answer::Refused(error) => {
                        refusals += 1;
                        if refusals >= members {
                            return Err(error);
                        }
                        error.to_string()
                    }
                    Answer::Again(problem) => {
                        refusals = 0;
                        problem
                    }
                },
                Err(_) => format!("{place} did not answer"),
            };
            tracing::debug!(member = %place, %problem, attempt, "the store was asked in vain");
            self.leave(member);
            // A slow member deserves more time, once all have been asked.
            if attempt % members == 0 {
                limit = limit.saturating_mul(2);
            }
            let pause = backoff.pause();
            if Instant::now() + pause >= until {
                return Err(StoreError::Unavailable {
                    place: self.access.endpoints.join(", "),
                    after: started.elapsed(),
                    error: problem,
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The connection to a member, made (and logged in) when there is none.
    async fn client(&self, member: usize) -> Result<Client, etcd_client::Error> {
        if let Some(client) = &self.clients.borrow()[member] {
            return Ok(client.clone());
        }
        let options = self.access.options.clone();
        let client = Client::connect([&self.access.endpoints[member]], Some(options)).await?;
        self.clients.borrow_mut()[member] = Some(client.clone());
        Ok(client)
    }

    /// Drops the connection to a member and turns to the next one, unless another call has done so.
    fn leave(&self, member: usize) {
        self.clients.borrow_mut()[member] = None;
        if self.current.get() == member {
            self.current.set((member + 1) % self.access.endpoints.len());
        }
    }
}
