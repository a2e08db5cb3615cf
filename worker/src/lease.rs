//! The lease: a thread of its own says that the worker is alive, however busy the engine is.

use std::{
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use medevo_rpc::{Client, Credentials};
use medevo_types::WorkerTag;
use tokio::sync::watch;

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
    /// Starts to keep the lease of `tag` at the coordinator at `address`; a heartbeat each third of
    /// `ttl`, over a connection and a runtime of its own.
    ///
    /// # Errors
    /// The system has no thread or no runtime to give.
    pub fn keep(
        address: &str,
        credentials: Credentials,
        tag: WorkerTag,
        ttl: Duration,
    ) -> anyhow::Result<Self> {
        let (term, terms) = watch::channel(Term { tag, ttl });
        let client = Client::new(address, credentials);
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
