//! How to reach the members: addresses, TLS and user.

use std::{fs, path::PathBuf, time::Duration};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::{Settings, StoreError};

/// etcd closes connections whose pings come more often than every 5 s.
const PING: Duration = Duration::from_secs(6);
/// A member that answers no ping for so long is given up.
const PING_ANSWER: Duration = Duration::from_secs(3);

/// What a connection needs, read once.
pub(super) struct Access {
    /// Addresses; never empty.
    pub endpoints: Vec<String>,
    /// For every connection.
    pub options: ConnectOptions,
    /// Longest wait for one member's first answer.
    pub attempt: Duration,
    /// What refusals name.
    pub named: Named,
}

/// What the way out of a refusal names.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// The user, if there is one.
    pub user: Option<String>,
    /// The CA's file, if there is one.
    pub ca: Option<PathBuf>,
    /// Whether a client certificate is shown.
    pub cert: Option<PathBuf>,
    /// What the run's keys start with.
    pub base: String,
}

impl Access {
    /// Reads the PEM files.
    pub fn read(settings: &Settings) -> Result<Self, StoreError> {
        if settings.endpoints.is_empty() {
            return Err(open("no endpoint is named; set store.endpoints"));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(settings.attempt())
            .with_keep_alive(PING, PING_ANSWER)
            .with_keep_alive_while_idle(true)
            // A member that has lost the others says so, instead of keeping a watch silent.
            .with_require_leader(true);
        if let Some(user) = &settings.user {
            let password = settings.password.as_deref().unwrap_or_default();
            options = options.with_user(user, password);
        }
        if settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            options = options.with_tls(tls(settings)?);
        }
        Ok(Self {
            endpoints: settings.endpoints.clone(),
            options,
            attempt: settings.attempt(),
            named: Named {
                user: settings.user.clone(),
                ca: settings.ca.clone(),
                cert: settings.cert.clone(),
                base: settings.base(),
            },
        })
    }
}

fn tls(settings: &Settings) -> Result<TlsOptions, StoreError> {
    let ca = settings.ca.as_ref().ok_or_else(|| {
        open("an endpoint is https, but no CA is named; set store.ca to the CA's PEM file")
    })?;
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(pem(ca)?));
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(pem(cert)?, pem(key)?)),
        (None, None) => {}
        _ => return Err(open("store.cert and store.key belong together; set both or neither")),
    }
    Ok(tls)
}

fn pem(path: &PathBuf) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| open(&format!("{} cannot be read: {error}", path.display())))
}

fn open(error: &str) -> StoreError {
    StoreError::Backend { action: "open", error: error.to_owned() }
}
