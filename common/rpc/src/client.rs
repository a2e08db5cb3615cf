//! A worker's side of the control plane: one connection, made again when it breaks.
//!
//! Every call takes its patience: how long all tries together may take, connecting and pauses
//! included. A try that the connection failed, or that got no answer in time, is made again on a new
//! connection. The coordinator answers a call that it has had already the same way or with
//! `Duplicate`, so trying again is safe; only `rendezvous_add` is never sent twice.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use medevo_types::{
    WorkerTag,
    messages::{Directive, Envelope, Hello, JoinRefused, Rejection, Welcome},
};
use serde_bytes::ByteBuf;
use tarpc::{
    client::{Config, RpcError},
    context::Context,
};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use crate::{
    Backoff, codec,
    connect::{Credentials, NoConnection, connect},
    place::{LastKnown, Locate},
    service::CoordinatorClient,
};

/// Longest wait for the answer of one try. The server's long polls take up to two seconds; a large
/// report over a slow line takes longer than a poll.
const ONE_TRY: Duration = Duration::from_secs(10);

/// Longest wait for a connection to stand, greeting included.
const CONNECT: Duration = Duration::from_secs(5);

/// With less than this left, another try is not worth it.
const LAST_TRY: Duration = Duration::from_millis(20);

/// A call without an answer. What the coordinator itself turned down is no [`CallError`], but the
/// inner result of the call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer within the patience.
    #[error(
        "no answer to `{call}` from the coordinator at {address} within {waited:.1?}: {last}; check \
         that it runs and that the address is right"
    )]
    Unreachable {
        /// Which call.
        call: &'static str,
        /// Of which coordinator.
        address: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last try met.
        last: String,
    },
    /// The coordinator did not let this side in, or this side did not trust it, at the first connection.
    /// Later ones are tried again: a coordinator that was good once may come back.
    #[error("the coordinator at {address} was not joined: {reason}")]
    TurnedAway {
        /// Which coordinator.
        address: String,
        /// Why, with the way out.
        reason: String,
    },
    /// The message could not be put on the wire; another try would meet the same.
    #[error("`{call}` cannot be sent: {reason} (a message may have {} MiB)", codec::MAX_FRAME_BYTES >> 20)]
    Unsendable {
        /// Which call.
        call: &'static str,
        /// Why.
        reason: String,
    },
}

/// A connection to the coordinator that mends itself. Use it from one runtime only.
pub struct Client {
    place: Arc<dyn Locate>,
    known: LastKnown,
    credentials: Credentials,
    link: Mutex<Link>,
}

/// The connection and its number, so that only who saw it fail drops it.
#[derive(Default)]
struct Link {
    number: u64,
    stub: Option<CoordinatorClient>,
}

/// Whether a call that may have reached the coordinator is sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resend {
    Yes,
    No,
}

impl Client {
    /// A client of the coordinator at `address` ("host:port"); the first call connects.
    #[must_use]
    pub fn new(address: impl Into<String>, credentials: Credentials) -> Self {
        let address: String = address.into();
        let client = Self::finding(Arc::new(address.clone()), credentials);
        client.known.set(&address);
        client
    }

    /// A client of whoever leads the run, at every connection anew.
    #[must_use]
    pub fn finding(place: Arc<dyn Locate>, credentials: Credentials) -> Self {
        Self { place, known: LastKnown::default(), credentials, link: Mutex::default() }
    }

    /// A client whose connection stands.
    ///
    /// # Errors
    /// Nobody listens at `address` within `patience`, or it is not the run's coordinator.
    pub async fn connect(
        address: impl Into<String>,
        credentials: Credentials,
        patience: Duration,
    ) -> Result<Self, CallError> {
        let client = Self::new(address, credentials);
        let start = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            match client.stub(patience.saturating_sub(start.elapsed())).await {
                Ok(_) => return Ok(client),
                Err(last) => {
                    let last = client.may_pass(last).await?;
                    client.pause("connect", start, patience, &mut backoff, last).await?;
                }
            }
        }
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn address(&self) -> String {
        self.known.get()
    }

    /// Asks to be let in.
    ///
    /// # Errors
    /// No answer within `patience`.
    pub async fn join(
        &self,
        hello: &Hello,
        patience: Duration,
    ) -> Result<Result<Welcome, JoinRefused>, CallError> {
        self.call("join", Resend::Yes, patience, |stub, context| {
            let hello = hello.clone();
            async move { stub.join(context, hello).await }
        })
        .await
    }

    /// Says that the worker is alive.
    ///
    /// # Errors
    /// No answer within `patience`.
    pub async fn heartbeat(
        &self,
        from: &WorkerTag,
        patience: Duration,
    ) -> Result<Result<(), Rejection>, CallError> {
        self.call("heartbeat", Resend::Yes, patience, |stub, context| {
            let from = from.clone();
            async move { stub.heartbeat(context, from).await }
        })
        .await
    }

    /// Asks what to do; answered within two seconds.
    ///
    /// # Errors
    /// No answer within `patience`.
    pub async fn next(
        &self,
        from: &WorkerTag,
        patience: Duration,
    ) -> Result<Result<Directive, Rejection>, CallError> {
        self.call("next", Resend::Yes, patience, |stub, context| {
            let from = from.clone();
            async move { stub.next(context, from).await }
        })
        .await
    }

    /// Says what happened. When the answer to a first try was lost, the second is answered with
    /// [`Rejection::Duplicate`].
    ///
    /// # Errors
    /// No answer within `patience`, or the report is too large to send.
    pub async fn report(
        &self,
        envelope: &Envelope,
        patience: Duration,
    ) -> Result<Result<(), Rejection>, CallError> {
        self.call("report", Resend::Yes, patience, |stub, context| {
            let envelope = envelope.clone();
            async move { stub.report(context, envelope).await }
        })
        .await
    }

    /// Sets a key of the generation's rendezvous.
    ///
    /// # Errors
    /// No answer within `patience`.
    pub async fn rendezvous_set(
        &self,
        from: &WorkerTag,
        key: &str,
        value: &[u8],
        patience: Duration,
    ) -> Result<Result<(), Rejection>, CallError> {
        self.call("rendezvous_set", Resend::Yes, patience, |stub, context| {
            let (from, key, value) = (from.clone(), key.to_owned(), ByteBuf::from(value));
            async move { stub.rendezvous_set(context, from, key, value).await }
        })
        .await
    }

    /// Reads a key of the rendezvous; None when nobody has set it within two seconds.
    ///
    /// # Errors
    /// No answer within `patience`.
    pub async fn rendezvous_get(
        &self,
        from: &WorkerTag,
        key: &str,
        patience: Duration,
    ) -> Result<Result<Option<ByteBuf>, Rejection>, CallError> {
        self.call("rendezvous_get", Resend::Yes, patience, |stub, context| {
            let (from, key) = (from.clone(), key.to_owned());
            async move { stub.rendezvous_get(context, from, key).await }
        })
        .await
    }

    /// Adds to a counter of the rendezvous and returns its new value; sent at most once.
    ///
    /// # Errors
    /// No answer within `patience`, or none to the one time that it was sent.
    pub async fn rendezvous_add(
        &self,
        from: &WorkerTag,
        key: &str,
        delta: i64,
        patience: Duration,
    ) -> Result<Result<i64, Rejection>, CallError> {
        self.call("rendezvous_add", Resend::No, patience, |stub, context| {
            let (from, key) = (from.clone(), key.to_owned());
            async move { stub.rendezvous_add(context, from, key, delta).await }
        })
        .await
    }

    /// Tries a call until it is answered or the patience is at its end.
    async fn call<T, F>(
        &self,
        call: &'static str,
        resend: Resend,
        patience: Duration,
        send: impl Fn(CoordinatorClient, Context) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            let last = match self.stub(left).await {
                Err(last) => self.may_pass(last).await?,
                Ok((number, stub)) => {
                    let left = patience.saturating_sub(start.elapsed());
                    let mut context = tarpc::context::current();
                    context.deadline = Instant::now() + left.min(ONE_TRY);
                    match send(stub, context).await {
                        Ok(answer) => return Ok(answer),
                        Err(RpcError::Send(e)) => {
                            return Err(CallError::Unsendable { call, reason: e.to_string() });
                        }
                        Err(error) => {
                            self.drop_link(number).await;
                            let last = sentence(&error);
                            if resend == Resend::No {
                                return Err(self.unreachable(call, start, last));
                            }
                            last
                        }
                    }
                }
            };
            self.pause(call, start, patience, &mut backoff, last).await?;
        }
    }

    /// Waits before the next try, or gives up.
    async fn pause(
        &self,
        call: &'static str,
        start: Instant,
        patience: Duration,
        backoff: &mut Backoff,
        last: String,
    ) -> Result<(), CallError> {
        let left = patience.saturating_sub(start.elapsed());
        if left < LAST_TRY {
            return Err(self.unreachable(call, start, last));
        }
        // A pause that would use the patience up still leaves time for a last try.
        let pause = backoff.pause().min(left / 2);
        tracing::debug!(call, coordinator = %self.known.get(), error = %last, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn unreachable(&self, call: &'static str, start: Instant, last: String) -> CallError {
        CallError::Unreachable { call, address: self.known.get(), waited: start.elapsed(), last }
    }

    /// The standing connection, or a new one.
    async fn stub(&self, left: Duration) -> Result<(u64, CoordinatorClient), NoConnection> {
        let mut link = self.link.lock().await;
        if let Some(stub) = &link.stub {
            return Ok((link.number, stub.clone()));
        }
        let address = self.locate(left).await.map_err(NoConnection::Passing)?;
        let stream = connect(&address, &self.credentials, left.min(CONNECT)).await?;
        let stub = CoordinatorClient::new(Config::default(), codec::client(stream)).spawn();
        link.number += 1;
        link.stub = Some(stub.clone());
        Ok((link.number, stub))
    }

    /// Where the coordinator is now.
    async fn locate(&self, left: Duration) -> Result<String, String> {
        let place = self.place.clone();
        let found = timeout(left.min(CONNECT), spawn_blocking(move || place.locate()));
        let found = found.await.map_err(|_| "finding the coordinator took too long".to_owned())?;
        let address =
            found.map_err(|error| format!("finding the coordinator broke off: {error}"))??;
        self.known.set(&address);
        Ok(address)
    }

    /// Gives the connection up: the next call finds the coordinator anew.
    pub async fn forget(&self) {
        self.link.lock().await.stub = None;
    }

    /// What a failed connection said, unless trying again is in vain.
    async fn may_pass(&self, failed: NoConnection) -> Result<String, CallError> {
        match failed {
            NoConnection::Passing(last) => Ok(last),
            NoConnection::TurnedAway(reason) if self.link.lock().await.number == 0 => {
                Err(CallError::TurnedAway { address: self.known.get(), reason })
            }
            NoConnection::TurnedAway(last) => Ok(last),
        }
    }

    /// Gives a connection up, unless somebody has put a newer one in its place.
    async fn drop_link(&self, number: u64) {
        let mut link = self.link.lock().await;
        if link.number == number {
            link.stub = None;
        }
    }
}

/// An error with its causes, in one line.
fn sentence(error: &RpcError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
