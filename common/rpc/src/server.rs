//! Serving [`Coordinator`] to many workers, within bounds.
//!
//! All connections are driven by the one future that [`serve`] returns: tarpc's generated futures are
//! `Send` only once the service is a concrete type, so a generic server cannot spawn them. The messages
//! are small and their handlers short; what takes long belongs into a task of the handler's own.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tarpc::server::{BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};

use crate::{codec, service::Coordinator};

/// What one server takes on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; a further one is closed as soon as it is accepted. A worker has two.
    pub connections: usize,
    /// Requests of one connection that are worked on at once; further ones wait unread.
    pub requests_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, requests_per_connection: 32 }
    }
}

/// Serves with the default [`Limits`] until the future is dropped, which closes all connections.
///
/// # Errors
/// The listener is broken for good.
pub async fn serve<S>(listener: TcpListener, service: S) -> std::io::Result<()>
where
    S: Coordinator + Clone,
{
    serve_within(listener, service, Limits::default()).await
}

/// Serves within `limits` until the future is dropped, which closes all connections.
///
/// # Errors
/// The listener is broken for good.
pub async fn serve_within<S>(
    listener: TcpListener,
    service: S,
    limits: Limits,
) -> std::io::Result<()>
where
    S: Coordinator + Clone,
{
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
        if connections.len() >= limits.connections {
            tracing::warn!(%peer, limit = limits.connections, "too many connections: one closed");
            continue;
        }
        let at_once = limits.requests_per_connection;
        connections.push(connection(stream, peer, service.clone(), at_once));
    }
}

/// Works on one connection until the other side closes it.
async fn connection<S>(stream: TcpStream, peer: SocketAddr, service: S, at_once: usize)
where
    S: Coordinator + Clone,
{
    tracing::debug!(%peer, "connection opened");
    BaseChannel::with_defaults(codec::wire(stream))
        .execute(service.serve())
        .for_each_concurrent(at_once, |answer| answer)
        .await;
    tracing::debug!(%peer, "connection closed");
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
