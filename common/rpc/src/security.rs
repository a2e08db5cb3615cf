//! Transport security: plain TCP, or TLS 1.3 in which both sides show a certificate of the run's own CA.
//!
//! One directory holds everything (`medevo-coord certs init` makes it). The CA is the run's alone and no
//! other is trusted, so a certificate of it says "belongs to this run". The coordinator's is checked
//! against one fixed name and not against its address: addresses change, with a standby or a new job.
//! A worker's certificate is for clients only; with it nobody can pose as the coordinator.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::certificate::{Certificate, CertificateError};

/// The name in every coordinator's certificate.
pub const COORDINATOR_NAME: &str = "coordinator.medevo";
/// The CA's certificate, within a directory of certificates.
pub const CA_FILE: &str = "ca.pem";
/// The coordinator's certificate and its key.
pub const COORDINATOR_FILES: [&str; 2] = ["coordinator.pem", "coordinator.key"];
/// The workers' certificate and its key.
pub const WORKER_FILES: [&str; 2] = ["worker.pem", "worker.key"];

/// How a connection is secured. `Config` says for which side.
#[derive(Clone)]
pub enum Security<Config> {
    /// Not at all: for loopback, or a network where everyone is trusted.
    Plain,
    /// TLS, with certificates on both sides.
    Mutual(Arc<Config>),
}

impl<Config> fmt::Debug for Security<Config> {
    /// Without the configuration: it holds the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Mutual(_) => "Mutual",
        })
    }
}

/// The coordinator's side.
pub type ServerSecurity = Security<ServerConfig>;
/// A worker's side.
pub type ClientSecurity = Security<ClientConfig>;

impl Security<ServerConfig> {
    /// The coordinator's side, from a directory of certificates; plain without one.
    ///
    /// # Errors
    /// A file is missing, broken, or a certificate is not in force.
    pub fn of_coordinator(directory: Option<&Path>) -> Result<Self, CertificateError> {
        let Some(directory) = directory else { return Ok(Self::Plain) };
        let files = Files::read(directory, COORDINATOR_FILES)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(files.roots), provider())
                .build()
                .map_err(|e| unusable(directory.join(CA_FILE), e))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(directory.to_owned(), e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![files.certificate], files.key)
            .map_err(|e| unusable(directory.join(COORDINATOR_FILES[1]), e))?;
        Ok(Self::Mutual(Arc::new(config)))
    }
}

impl Security<ClientConfig> {
    /// A worker's side, from a directory of certificates; plain without one.
    ///
    /// # Errors
    /// As [`ServerSecurity::of_coordinator`].
    pub fn of_worker(directory: Option<&Path>) -> Result<Self, CertificateError> {
        let Some(directory) = directory else { return Ok(Self::Plain) };
        let files = Files::read(directory, WORKER_FILES)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(directory.to_owned(), e))?
            .with_root_certificates(files.roots)
            .with_client_auth_cert(vec![files.certificate], files.key)
            .map_err(|e| unusable(directory.join(WORKER_FILES[1]), e))?;
        Ok(Self::Mutual(Arc::new(config)))
    }
}

/// What one side reads of the directory.
struct Files {
    roots: RootCertStore,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Files {
    fn read(directory: &Path, [certificate, key]: [&str; 2]) -> Result<Self, CertificateError> {
        let ca = directory.join(CA_FILE);
        let mut roots = RootCertStore::empty();
        roots.add(Certificate::read(&ca)?.in_force()?).map_err(|e| unusable(ca, e))?;
        let certificate = Certificate::read(&directory.join(certificate))?.in_force()?;
        let path = directory.join(key);
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|e| unusable(path.clone(), e))?;
        warn_if_readable_by_others(&path);
        Ok(Self { roots, certificate, key })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unusable(path: PathBuf, error: impl std::fmt::Display) -> CertificateError {
    CertificateError::Unusable { path, reason: error.to_string() }
}

fn warn_if_readable_by_others(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_or(0, |file| file.permissions().mode() & 0o777);
    if mode & 0o007 != 0 {
        tracing::warn!(
            "every user of this machine can read {} (mode {mode:o}); chmod 600 it",
            key.display()
        );
    }
}
