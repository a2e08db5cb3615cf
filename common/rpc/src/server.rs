//! Serving [`Coordinator`] to many workers, within bounds.
//!
//! All connections are driven by the one future that [`serve`] returns: tarpc's generated futures are
//! `Send` only once the service is a concrete type, so a generic server cannot spawn them. The messages
//! are small and their handlers short; what takes long belongs into a task of the handler's own.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tarpc::server::{BaseChannel, Channel};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{codec, door::Door, refusal::Refusal, service::Coordinator};

/// What one server takes on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that were let in; a further one is closed. A worker has two.
    pub connections: usize,
    /// Connections on their way in; a further one is closed as soon as it is accepted.
    pub waiting: usize,
    /// How long a connection may take to be let in.
    pub greeting: Duration,
    /// Requests of one connection that are worked on at once; further ones wait unread.
    pub requests_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            waiting: 128,
            greeting: Duration::from_secs(5),
            requests_per_connection: 32,
        }
    }
}

/// Serves with the default [`Limits`] until the future is dropped, which closes all connections.
///
/// # Errors
/// The listener is broken for good.
pub async fn serve<S>(listener: TcpListener, service: S, door: Door) -> std::io::Result<()>
where
    S: Coordinator + Clone,
{
    serve_within(listener, service, door, Limits::default()).await
}

/// Serves within `limits` until the future is dropped, which closes all connections.
///
/// # Errors
/// The listener is broken for good.
pub async fn serve_within<S>(
    listener: TcpListener,
    service: S,
    door: Door,
    limits: Limits,
) -> std::io::Result<()>
where
    S: Coordinator + Clone,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let waiting = Arc::new(Semaphore::new(limits.waiting));
    let mut connections = FuturesUnordered::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "cannot accept a connection now; trying again");
                    // The connections that are there go on meanwhile, and may free handles.
                    let pause = tokio::time::sleep(Duration::from_millis(100));
                    tokio::pin!(pause);
                    while tokio::select! {
                        () = &mut pause => false,
                        Some(()) = connections.next(), if !connections.is_empty() => true,
                    } {}
                    continue;
                }
                Err(error) => return Err(error),
            },
            Some(()) = connections.next(), if !connections.is_empty() => continue,
        };
        let Ok(turn) = Arc::clone(&waiting).try_acquire_owned() else {
            door.turn_away(peer, &Refusal::Crowded);
            continue;
        };
        let (service, door, places) = (service.clone(), door.clone(), Arc::clone(&places));
        let connection = async move {
            match enter(stream, &door, turn, places, limits.greeting).await {
                Ok((wire, place)) => {
                    tracing::debug!(%peer, "connection opened");
                    work(wire, service, limits.requests_per_connection).await;
                    tracing::debug!(%peer, "connection closed");
                    drop(place);
                }
                Err(why) => door.turn_away(peer, &why),
            }
        };
        // All connections share this future: one that panics must not take the others along.
        connections.push(AssertUnwindSafe(connection).catch_unwind().map(move |end| {
            if end.is_err() {
                tracing::error!(%peer, "a connection's work panicked; the connection is closed");
            }
        }));
    }
}

/// Lets one connection in, which then holds a place. `turn` is given on at the end of the greeting.
async fn enter(
    stream: TcpStream,
    door: &Door,
    turn: OwnedSemaphorePermit,
    places: Arc<Semaphore>,
    patience: Duration,
) -> Result<(codec::ServerWire, OwnedSemaphorePermit), Refusal> {
    let stream = door.enter(stream, patience).await;
    drop(turn);
    let stream = stream?;
    let place = places.try_acquire_owned().map_err(|_| Refusal::Full)?;
    Ok((codec::server(stream), place))
}

/// Works on one connection until the other side closes it.
async fn work<S>(wire: codec::ServerWire, service: S, at_once: usize)
where
    S: Coordinator + Clone,
{
    BaseChannel::with_defaults(wire)
        .execute(service.serve())
        .for_each_concurrent(at_once, |answer| answer)
        .await;
}

/// Whether accepting may work again: the connection was gone already, or handles ran out.
fn is_passing(error: &std::io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::Interrupted
            | std::io::ErrorKind::OutOfMemory
    ) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
