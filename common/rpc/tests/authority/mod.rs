//! Directories of certificates as `medevo-coord certs init` makes them, and some that it never would.

use std::{fs, path::Path, sync::Arc};

use medevo_rpc::{COORDINATOR_NAME, ClientSecurity, Security};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A CA.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Until when a certificate holds, days from now.
#[derive(Clone, Copy)]
struct Until(i64);

const VALID: Until = Until(100);
const EXPIRED: Until = Until(-3);

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, &[], VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A whole directory.
    pub fn directory(&self) -> TempDir {
        self.make(VALID)
    }

    /// One whose certificates have expired (the CA's has not).
    pub fn expired_directory(&self) -> TempDir {
        self.make(EXPIRED)
    }

    /// A worker whose certificate has expired since it was started.
    pub fn expired_worker(&self) -> ClientSecurity {
        let dir = self.make(EXPIRED);
        let certificate = CertificateDer::from_pem_file(dir.path().join("worker.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.path().join("worker.key")).unwrap();
        let config = trusting(dir.path()).with_client_auth_cert(vec![certificate], key).unwrap();
        Security::Mutual(Arc::new(config))
    }

    fn make(&self, until: Until) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), &self.pem).unwrap();
        let sides = [
            ("coordinator", &[COORDINATOR_NAME][..], ExtendedKeyUsagePurpose::ServerAuth),
            ("worker", &[], ExtendedKeyUsagePurpose::ClientAuth),
        ];
        for (name, holds_for, usage) in sides {
            let key = KeyPair::generate().unwrap();
            let mut params = params(name, holds_for, until);
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        dir
    }
}

/// A worker that trusts the run's CA but has no certificate of its own.
pub fn without_certificate(dir: &Path) -> ClientSecurity {
    Security::Mutual(Arc::new(trusting(dir).with_no_client_auth()))
}

fn trusting(dir: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn params(name: &str, holds_for: &[&str], until: Until) -> CertificateParams {
    let names: Vec<String> = holds_for.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(30);
    params.not_after = now + Duration::days(until.0);
    params
}
