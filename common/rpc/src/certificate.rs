//! A certificate in a PEM file: whose it is and how long it holds.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// With fewer days left than this a certificate is called out at every start.
pub const FEW_DAYS: i64 = 14;

/// Why certificates cannot be used. Every sentence names the file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is not there or holds something else.
    #[error(
        "{} cannot be used: {reason}; `medevo-coord certs init DIR` makes a directory of certificates",
        path.display()
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It held once.
    #[error(
        "the certificate {} has expired {days} days ago; make new ones with `medevo-coord certs init` in a \
         new directory and give them to the coordinator and all workers",
        path.display()
    )]
    Expired {
        /// Which file.
        path: PathBuf,
        /// How long ago, days.
        days: i64,
    },
    /// It will hold later.
    #[error("the certificate {} does not hold yet; check this machine's clock", path.display())]
    NotYet {
        /// Which file.
        path: PathBuf,
    },
}

/// A certificate, with what people want to know of it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Its file.
    pub path: PathBuf,
    /// The name in it.
    pub name: String,
    /// Who signed it.
    pub issuer: String,
    /// DNS names and addresses that it holds for.
    pub holds_for: Vec<String>,
    from: i64,
    until: i64,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads the first certificate of a PEM file, whatever its dates.
    ///
    /// # Errors
    /// There is no file, or no certificate in it.
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        let unusable =
            |reason: String| CertificateError::Unusable { path: path.to_owned(), reason };
        let der = CertificateDer::from_pem_file(path).map_err(|e| unusable(e.to_string()))?;
        let (_, parsed) = parse_x509_certificate(&der).map_err(|e| unusable(e.to_string()))?;
        let names = parsed.subject_alternative_name().map_err(|e| unusable(e.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            name: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            holds_for: names.map_or_else(Vec::new, |names| {
                names.value.general_names.iter().map(name_of).collect()
            }),
            from: parsed.validity().not_before.timestamp(),
            until: parsed.validity().not_after.timestamp(),
            der: der.clone(),
        })
    }

    /// Whole days until it expires; negative once it has.
    #[must_use]
    pub fn days_left(&self) -> i64 {
        (self.until - now()).div_euclid(DAY)
    }

    /// The certificate if it holds now; a warning in the log if not for long any more.
    ///
    /// # Errors
    /// It has expired, or does not hold yet.
    pub(crate) fn in_force(self) -> Result<CertificateDer<'static>, CertificateError> {
        let days = self.days_left();
        if days < 0 {
            return Err(CertificateError::Expired { path: self.path, days: -days });
        }
        if now() < self.from {
            return Err(CertificateError::NotYet { path: self.path });
        }
        if days < FEW_DAYS {
            tracing::warn!(
                certificate = %self.path.display(),
                "expires in {days} days; make new ones with `medevo-coord certs init` in a new directory"
            );
        }
        Ok(self.der)
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn name_of(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .map(std::net::Ipv4Addr::from)
                .ok()
                .map(|a| a.to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .map(std::net::Ipv6Addr::from)
                .ok()
                .map(|a| a.to_string()),
            _ => None,
        }
        .unwrap_or_else(|| "an address".to_owned()),
        other => other.to_string(),
    }
}
