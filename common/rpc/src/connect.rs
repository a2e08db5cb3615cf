//! A client's way in: connect, secure, greet.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{
    connection::{Connection, prepare},
    greeting::{self, Answer},
    refusal,
    security::{COORDINATOR_NAME, ClientSecurity, Security},
};

/// What a client shows, and what it asks to be shown.
#[derive(Clone)]
pub struct Credentials {
    /// The run's join token.
    pub token: String,
    /// TLS or not.
    pub security: ClientSecurity,
}

impl Credentials {
    /// A token on a trusted network.
    #[must_use]
    pub fn plain(token: impl Into<String>) -> Self {
        Self { token: token.into(), security: Security::Plain }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoConnection {
    /// Another try may do better.
    Passing(String),
    /// The coordinator, or this side, says no: the same will be said again.
    TurnedAway(String),
}

/// A connection on which the greeting is done, within `patience`.
pub(crate) async fn connect(
    address: &str,
    credentials: &Credentials,
    patience: Duration,
) -> Result<Connection, NoConnection> {
    let passing = |what: &str| NoConnection::Passing(what.to_owned());
    let until = Instant::now() + patience;
    let stream = timeout_at(until, TcpStream::connect(address))
        .await
        .map_err(|_| passing("connecting took too long"))?
        .map_err(|e| NoConnection::Passing(format!("cannot connect: {e}")))?;
    prepare(&stream);
    timeout_at(until, enter(stream, credentials)).await.map_err(|_| {
        passing("it was connected to, but did not greet in time (is it a medevo coordinator?)")
    })?
}

async fn enter(stream: TcpStream, credentials: &Credentials) -> Result<Connection, NoConnection> {
    let (mut stream, secured): (Connection, _) = match &credentials.security {
        Security::Plain => (Box::new(stream), false),
        Security::Mutual(config) => {
            let name = ServerName::try_from(COORDINATOR_NAME).expect("a constant DNS name");
            let connector = TlsConnector::from(config.clone());
            let stream = connector.connect(name, stream).await.map_err(|e| broken(&e))?;
            (Box::new(stream), true)
        }
    };
    let turned_away = |what: &str| Err(NoConnection::TurnedAway(what.to_owned()));
    match greeting::show(&mut stream, &credentials.token).await {
        Ok(Answer::Admitted) => Ok(stream),
        Ok(Answer::WantsTls) if !secured => turned_away(
            "the coordinator speaks TLS only; give --certificates DIR, with this run's certificates",
        ),
        Ok(Answer::TurnedAway | Answer::WantsTls) => turned_away(
            "not admitted to this run; check that MEDEVO_TOKEN or --token-file holds this run's token",
        ),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &io::Error) -> NoConnection {
    match refusal::seen_by_client(error) {
        Some(sentence) => NoConnection::TurnedAway(sentence),
        None if error.kind() == io::ErrorKind::InvalidInput => {
            NoConnection::TurnedAway(error.to_string())
        }
        None => NoConnection::Passing(format!("the connection broke at the greeting: {error}")),
    }
}
