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

use super::{Refusals, Rendezvous};
use crate::driver::Handle;

/// One run's service; cloned per request. Whoever calls it has shown the run's token at the door
/// ([`medevo_rpc::Door`]); that it speaks in the name of a worker that was let in is checked here and in the
/// core, by its tag.
#[derive(Clone)]
pub struct Service {
    driver: Handle,
    refusals: Arc<Refusals>,
    welcome: Arc<Welcome>,
    rendezvous: Arc<Rendezvous>,
}

impl Service {
    /// The service of the run behind `driver`.
    #[must_use]
    pub fn new(
        driver: Handle,
        refusals: Arc<Refusals>,
        run_id: String,
        lease_ttl_ms: u64,
        engine: EngineSetup,
    ) -> Self {
        let welcome = Arc::new(Welcome { run_id, lease_ttl_ms, engine });
        Self { driver, refusals, welcome, rendezvous: Arc::default() }
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
        tracing::info!(worker = %hello.tag.worker, device = hello.device, pid = hello.pid, "joining");
        let worker = hello.tag.worker.clone();
        if let Err(reason) = self.driver.join(hello.tag, hello.device, hello.address).await {
            // Quoted: a name must not be able to make lines of its own.
            self.refusals.tell(format!("worker {:?} was not let in: {reason}", worker.0));
            return Err(reason);
        }
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
