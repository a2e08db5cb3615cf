//! What workers can ask, answered by the driver.

use std::sync::Arc;

use medevo_rpc::service::Coordinator;
use medevo_types::{
    Generation, WorkerTag,
    messages::{Directive, EngineSetup, Envelope, Hello, JoinRefused, Rejection, Welcome},
};
use serde_bytes::ByteBuf;
use tarpc::context::Context;
use tokio::sync::watch;

use super::{Rendezvous, Token};
use crate::driver::Handle;

/// One run's service; cloned per request.
#[derive(Clone)]
pub struct Service {
    driver: Handle,
    token: Token,
    welcome: Arc<Welcome>,
    rendezvous: Arc<Rendezvous>,
}

impl Service {
    /// The service of the run behind `driver`.
    #[must_use]
    pub fn new(
        driver: Handle,
        token: Token,
        run_id: String,
        lease_ttl_ms: u64,
        engine: EngineSetup,
    ) -> Self {
        let welcome = Arc::new(Welcome { run_id, lease_ttl_ms, engine });
        Self { driver, token, welcome, rendezvous: Arc::default() }
    }

    /// The current generation, for a worker that was let in.
    fn meeting(&self, from: &WorkerTag) -> Result<watch::Receiver<Generation>, Rejection> {
        let admission = self.driver.admission();
        if admission.knows(from) {
            return Ok(admission.generation());
        }
        Err(match admission.latest(&from.worker) {
            Some(_) => Rejection::StaleIncarnation,
            None => Rejection::UnknownWorker,
        })
    }
}

impl Coordinator for Service {
    async fn join(self, _: Context, hello: Hello) -> Result<Welcome, JoinRefused> {
        if !self.token.admits(&hello.token) {
            // Quoted: whoever has no token must not be able to write lines of the log.
            tracing::warn!(worker = ?hello.tag.worker.0, "a worker showed a wrong token and was turned away");
            return Err(JoinRefused::NotAdmitted);
        }
        tracing::info!(worker = %hello.tag.worker, device = hello.device, pid = hello.pid, "joining");
        self.driver.join(hello.tag, hello.device, hello.address).await?;
        Ok(Welcome::clone(&self.welcome))
    }

    async fn heartbeat(self, _: Context, from: WorkerTag) -> Result<(), Rejection> {
        self.driver.heartbeat(from).await
    }

    async fn next(self, _: Context, from: WorkerTag) -> Result<Directive, Rejection> {
        self.driver.next(from).await
    }

    async fn report(self, _: Context, envelope: Envelope) -> Result<(), Rejection> {
        self.driver.report(envelope).await
    }

    async fn rendezvous_set(
        self,
        _: Context,
        from: WorkerTag,
        key: String,
        value: ByteBuf,
    ) -> Result<(), Rejection> {
        let current = *self.meeting(&from)?.borrow();
        self.rendezvous.set(current, &key, value.into_vec())
    }

    async fn rendezvous_get(
        self,
        _: Context,
        from: WorkerTag,
        key: String,
    ) -> Result<Option<ByteBuf>, Rejection> {
        let mut generation = self.meeting(&from)?;
        let value = self.rendezvous.get(&mut generation, &key).await?;
        Ok(value.map(ByteBuf::from))
    }

    async fn rendezvous_add(
        self,
        _: Context,
        from: WorkerTag,
        key: String,
        delta: i64,
    ) -> Result<i64, Rejection> {
        let current = *self.meeting(&from)?.borrow();
        self.rendezvous.add(current, &key, delta)
    }
}
