//! Where workers come in, and what they must show.

use std::path::Path;

use anyhow::Context;
use medevo_common::config::ValidConfig;
use medevo_rpc::{Security, ServerSecurity};
use tokio::net::TcpListener;

use crate::{preflight::Refused, rpc::Token, run_dir::RunDir};

/// What it takes to let workers in.
pub(super) struct Entrance {
    pub(super) listener: TcpListener,
    pub(super) security: ServerSecurity,
    pub(super) token: Token,
}

impl Entrance {
    /// Lets workers in by `listener`. The token is that of `token_file`, else of the environment, else of the run
    /// directory, where a new one is put for workers and standbys of this run.
    ///
    /// # Errors
    /// [`Refused`]: the token is no good.
    pub(super) fn open(
        listener: TcpListener,
        security: ServerSecurity,
        token_file: Option<&Path>,
        run_dir: &RunDir,
    ) -> anyhow::Result<Self> {
        let token = Token::of_run(token_file, run_dir.path()).map_err(Refused::because)?;
        Ok(Self { listener, security, token })
    }

    /// The address at which workers reach this coordinator.
    ///
    /// # Errors
    /// The system does not say.
    pub(super) fn address(&self, config: &ValidConfig) -> anyhow::Result<String> {
        address(&self.listener, config)
    }
}

/// The address at which workers reach who listens there.
///
/// # Errors
/// The system does not say.
pub(super) fn address(listener: &TcpListener, config: &ValidConfig) -> anyhow::Result<String> {
    let address = listener.local_addr().context("reading the listen address")?;
    Ok(match &config.cluster.advertise {
        Some(host) => format!("{host}:{}", address.port()),
        // Workers on this machine reach an unspecified address (0.0.0.0) by loopback.
        None if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        None => address.to_string(),
    })
}

/// TLS or not, as the run file says.
///
/// # Errors
/// [`Refused`]: the certificates are no good.
pub(super) fn security(config: &ValidConfig) -> anyhow::Result<ServerSecurity> {
    let directory = config.cluster.certificates.as_deref();
    Ok(Security::of_coordinator(directory).map_err(Refused::because)?)
}

/// Listens where the run file says.
///
/// # Errors
/// [`Refused`]: the address cannot be had.
pub(super) async fn listen(config: &ValidConfig) -> anyhow::Result<TcpListener> {
    let address = &config.cluster.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Refused::because(anyhow::anyhow!(
            "cannot listen on {address} ({error}); choose another address with `cluster.listen`, for \
             example --set cluster.listen=127.0.0.1:0 for any free port"
        ))
    })?;
    Ok(listener)
}
