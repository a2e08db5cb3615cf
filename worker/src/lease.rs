//! The lease: a thread of its own says that the worker is alive, however busy the engine is.

use std::{
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_rpc::{Client, Credentials, Locate};
use medevo_store::{Keeper, Store, StoreError, WORKERS, Write};
use medevo_types::WorkerTag;
use tokio::{sync::watch, time::timeout};

/// Pause before the store is asked again for a lease.
const AGAIN: Duration = Duration::from_millis(200);

/// Whose lease is kept, and how long one lasts.
#[derive(Clone, Debug)]
struct Term {
    tag: WorkerTag,
    ttl: Duration,
}

/// A lease that is kept until this is dropped.
pub struct Lease {
    term: Option<watch::Sender<Term>>,
    thread: Option<JoinHandle<()>>,
}

impl Lease {
    /// Starts to keep the lease of `tag` at the coordinator that `place` finds; a heartbeat each third of
    /// `ttl`, over a connection and a runtime of its own.
    ///
    /// # Errors
    /// The system has no thread or no runtime to give.
    pub fn keep(
        place: Arc<dyn Locate>,
        credentials: Credentials,
        tag: WorkerTag,
        ttl: Duration,
    ) -> anyhow::Result<Self> {
        let (term, terms) = watch::channel(Term { tag, ttl });
        let client = Client::finding(place, credentials);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make the lease thread's runtime")?;
        let thread = Builder::new()
            .name("lease".to_owned())
            .spawn(move || runtime.block_on(beat(&client, terms)))
            .context("cannot start the lease thread")?;
        Ok(Self { term: Some(term), thread: Some(thread) })
    }

    /// Starts to keep the lease of `tag` in the run's own store, under a key that goes with it. Another life of the
    /// worker gets another key, and this one's goes at once.
    ///
    /// # Errors
    /// The system has no thread or no runtime to give.
    pub fn in_store(store: Arc<dyn Store>, tag: WorkerTag, ttl: Duration) -> anyhow::Result<Self> {
        let (term, terms) = watch::channel(Term { tag, ttl });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot make the lease thread's runtime")?;
        let thread = Builder::new()
            .name("lease".to_owned())
            .spawn(move || runtime.block_on(register(&store, terms)))
            .context("cannot start the lease thread")?;
        Ok(Self { term: Some(term), thread: Some(thread) })
    }

    /// Goes on as a later life of the worker.
    pub fn renew_as(&self, tag: WorkerTag, ttl: Duration) {
        if let Some(term) = &self.term {
            term.send_replace(Term { tag, ttl });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.term = None;
        // The thread sees the closed channel at once, also in the middle of a call.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps a key in the store until the channel is closed. This thread may block: it has nothing else to do, and the
/// keeper renews on one of its own. A lease that is lost stays lost: the coordinator takes the worker out, and the
/// worker joins again in a new life.
async fn register(store: &Arc<dyn Store>, mut terms: watch::Receiver<Term>) {
    loop {
        let term = terms.borrow_and_update().clone();
        match key(store, &term) {
            Ok(_keeper) => {
                if terms.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(worker = %term.tag.worker, %error, "the lease is not in the store yet");
                if let Ok(Err(_)) = timeout(AGAIN, terms.changed()).await {
                    return;
                }
            }
        }
    }
}

/// The worker's key under a lease of its own.
fn key(store: &Arc<dyn Store>, term: &Term) -> Result<Keeper, StoreError> {
    let Term { tag, ttl } = term;
    let name = format!("{WORKERS}{}/{}", tag.worker, tag.incarnation);
    let writes = |lease| vec![Write::leased(name, tag.incarnation.to_string(), lease)];
    Keeper::start(store.clone(), *ttl, &[], writes, |_| ())
}

/// Heartbeats until the channel is closed.
async fn beat(client: &Client, mut terms: watch::Receiver<Term>) {
    let mut term = terms.borrow_and_update().clone();
    let mut deadline = Instant::now() + term.ttl;
    // Said once for each loss, not at every beat.
    let mut lost = false;
    loop {
        let sent = Instant::now();
        let third = term.ttl / 3;
        let answer = tokio::select! {
            answer = client.heartbeat(&term.tag, third) => answer,
            change = terms.changed() => match change {
                Ok(()) => {
                    term = terms.borrow_and_update().clone();
                    deadline = Instant::now() + term.ttl;
                    lost = false;
                    continue;
                }
                Err(_) => return,
            },
        };
        match answer {
            Ok(Ok(())) => {
                if lost {
                    tracing::info!(worker = %term.tag.worker, "the lease is kept again");
                }
                lost = false;
                // The coordinator counts from when it heard, which is no earlier than the sending.
                deadline = sent + term.ttl;
            }
            Ok(Err(rejection)) if !lost => {
                tracing::warn!(worker = %term.tag.worker, %rejection, "heartbeat turned away");
                lost = true;
            }
            Err(error) if !lost && Instant::now() >= deadline => {
                tracing::warn!(worker = %term.tag.worker, %error, "the lease has run out");
                lost = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        let next = tokio::time::sleep(third.saturating_sub(sent.elapsed()));
        tokio::select! {
            () = next => {}
            change = terms.changed() => match change {
                Ok(()) => {
                    term = terms.borrow_and_update().clone();
                    deadline = Instant::now() + term.ttl;
                    lost = false;
                }
                Err(_) => return,
            },
        }
    }
}
