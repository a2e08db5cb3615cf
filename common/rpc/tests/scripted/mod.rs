//! A coordinator that counts what it is asked, and connections to it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use medevo_rpc::{Doorkeeper, Refusal, service::Coordinator};
use medevo_types::{
    Incarnation, WorkerTag,
    messages::{Directive, Envelope, Hello, JoinRefused, Rejection, Welcome},
};
use serde_bytes::ByteBuf;
use tarpc::context::Context;

/// The token that [`Keeper`] admits.
pub const TOKEN: &str = "the token of this run";

/// Lets in who shows [`TOKEN`], and remembers why it let others not.
#[derive(Clone, Default)]
pub struct Keeper {
    pub refusals: Arc<Mutex<Vec<Refusal>>>,
}

impl Doorkeeper for Keeper {
    fn admits(&self, token: &str) -> bool {
        token == TOKEN
    }

    fn turned_away(&self, _: SocketAddr, why: &Refusal) {
        self.refusals.lock().unwrap().push(why.clone());
    }
}

/// Counts what it is asked, and remembers the last report.
#[derive(Clone, Default)]
pub struct Scripted {
    pub asked: Arc<AtomicUsize>,
    pub adds: Arc<AtomicI64>,
    pub silent_adds: Arc<AtomicUsize>,
    pub busy: Arc<AtomicUsize>,
    pub most_busy: Arc<AtomicUsize>,
    pub last: Arc<Mutex<Option<Envelope>>>,
}

impl Coordinator for Scripted {
    async fn join(self, _: Context, _: Hello) -> Result<Welcome, JoinRefused> {
        Err(JoinRefused::Full)
    }

    async fn heartbeat(self, _: Context, _: WorkerTag) -> Result<(), Rejection> {
        self.asked.fetch_add(1, SeqCst);
        let busy = self.busy.fetch_add(1, SeqCst) + 1;
        self.most_busy.fetch_max(busy, SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.busy.fetch_sub(1, SeqCst);
        Ok(())
    }

    async fn next(self, _: Context, _: WorkerTag) -> Result<Directive, Rejection> {
        self.asked.fetch_add(1, SeqCst);
        Ok(Directive::Stop { reason: "test".to_owned(), drained: false })
    }

    async fn report(self, _: Context, envelope: Envelope) -> Result<(), Rejection> {
        *self.last.lock().unwrap() = Some(envelope);
        Err(Rejection::StaleStep)
    }

    async fn rendezvous_set(
        self,
        _: Context,
        _: WorkerTag,
        _: String,
        _: ByteBuf,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    async fn rendezvous_get(
        self,
        _: Context,
        _: WorkerTag,
        _: String,
    ) -> Result<Option<ByteBuf>, Rejection> {
        Ok(None)
    }

    async fn rendezvous_add(
        self,
        _: Context,
        _: WorkerTag,
        _: String,
        delta: i64,
    ) -> Result<i64, Rejection> {
        let sum = self.adds.fetch_add(delta, SeqCst) + delta;
        if self.silent_adds.load(SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        Ok(sum)
    }
}

pub fn tag() -> WorkerTag {
    WorkerTag { worker: "w0".into(), incarnation: Incarnation(7) }
}
