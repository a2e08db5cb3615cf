//! The way in: TLS if there are certificates, then the greeting, all within one deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use crate::{
    connection::{Bytes, Connection, prepare},
    greeting,
    refusal::Refusal,
    security::{Security, ServerSecurity},
};

/// How long a caller that was turned away may take to hear it, and how much it may still say meanwhile.
/// Closing at once would reset the connection, and the answer could be lost.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 * 1024;

/// Who may come in, and who hears about those who may not.
pub trait Doorkeeper: Send + Sync {
    /// Whether this is the run's join token.
    fn admits(&self, token: &str) -> bool;

    /// A connection was turned away. Strangers decide how often this is called: bound what it does.
    fn turned_away(&self, peer: SocketAddr, why: &Refusal);
}

/// The way into a server; cheap to clone.
#[derive(Clone)]
pub struct Door {
    security: ServerSecurity,
    keeper: Arc<dyn Doorkeeper>,
}

impl Door {
    /// A door with this keeper.
    #[must_use]
    pub fn new(security: ServerSecurity, keeper: Arc<dyn Doorkeeper>) -> Self {
        Self { security, keeper }
    }

    /// A door that stands open: plain, any token. For tests of what is behind it.
    #[must_use]
    pub fn open() -> Self {
        struct Nobody;
        impl Doorkeeper for Nobody {
            fn admits(&self, _: &str) -> bool {
                true
            }
            fn turned_away(&self, peer: SocketAddr, why: &Refusal) {
                tracing::warn!(%peer, "turned away: {why}");
            }
        }
        Self::new(Security::Plain, Arc::new(Nobody))
    }

    /// Tells the keeper. Broken lines are nobody's fault (health checks connect and leave).
    pub(crate) fn turn_away(&self, peer: SocketAddr, why: &Refusal) {
        match why {
            Refusal::Broken(error) => tracing::debug!(%peer, error, "left at the door"),
            why => self.keeper.turned_away(peer, why),
        }
    }

    /// Lets a caller in within `patience`, or says why not.
    pub(crate) async fn enter(
        &self,
        stream: TcpStream,
        patience: Duration,
    ) -> Result<Connection, Refusal> {
        prepare(&stream);
        let entry = async {
            match &self.security {
                Security::Plain => self.greet(stream).await,
                Security::Mutual(config) => self.greet(secure(config, stream).await?).await,
            }
        };
        timeout(patience, entry).await.unwrap_or(Err(Refusal::Silent))
    }

    async fn greet<S: Bytes + 'static>(&self, mut stream: S) -> Result<Connection, Refusal> {
        match greeting::hear(&mut stream, |token| self.keeper.admits(token)).await {
            Ok(()) => Ok(Box::new(stream)),
            Err(why) => {
                part(stream).await;
                Err(why)
            }
        }
    }
}

/// The server's side of a TLS handshake.
async fn secure(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Refusal> {
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, stream)) => {
            part(stream).await;
            Err(error.into())
        }
    }
}

/// Ends a connection so that what was answered arrives.
async fn part(mut stream: impl Bytes) {
    let farewell = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // Whether it arrived is the caller's business.
    let _ = timeout(FAREWELL, farewell).await;
}
