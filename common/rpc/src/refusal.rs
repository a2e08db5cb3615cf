//! Why a connection was not let in, for the operator; the caller is told no more than that it was not.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

/// Why the server turned a connection away. Each sentence names the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another run's token, or a guess.
    #[error("it showed a wrong token; start it with this run's MEDEVO_TOKEN or --token-file")]
    WrongToken,
    /// Plain words to a server with certificates.
    #[error(
        "it does not speak TLS, which this run's `cluster.certificates` asks for; start the worker with \
         --certificates DIR"
    )]
    SpeaksPlain,
    /// TLS to a server without certificates.
    #[error(
        "it speaks TLS, but this run has no certificates; set `cluster.certificates`, or start the worker \
         without --certificates"
    )]
    SpeaksTls,
    /// TLS without a certificate.
    #[error("it showed no certificate; start the worker with --certificates DIR")]
    NoCertificate,
    /// A certificate of somebody else.
    #[error(
        "its certificate is not one of this run's CA ({0}); give the worker ca.pem, worker.pem and \
         worker.key of the directory that `cluster.certificates` names"
    )]
    ForeignCertificate(String),
    /// Its certificate held once.
    #[error(
        "its certificate has expired or does not hold yet; check its clock, or make new ones with \
         `medevo-coord certs init` in a new directory"
    )]
    ExpiredCertificate,
    /// The caller broke off when it saw our certificate.
    #[error(
        "it does not accept this coordinator's certificate ({0}); give it the ca.pem of the directory that \
         `cluster.certificates` names"
    )]
    Distrusts(String),
    /// Another program.
    #[error("it is not a medevo worker, or one of another version")]
    NotAWorker,
    /// Nothing was said.
    #[error("it did not introduce itself in time")]
    Silent,
    /// Too many at once.
    #[error("too many connections are waiting to be let in")]
    Crowded,
    /// All places are taken.
    #[error("all places for connections are taken")]
    Full,
    /// The line broke; no reason to tell anybody.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match tls_error(&error) {
            None => Self::Broken(error.to_string()),
            Some(TlsError::NoCertificatesPresented) => Self::NoCertificate,
            Some(TlsError::InvalidCertificate(reason)) if is_a_matter_of_dates(reason) => {
                Self::ExpiredCertificate
            }
            Some(TlsError::InvalidCertificate(reason)) => {
                Self::ForeignCertificate(reason.to_string())
            }
            Some(TlsError::AlertReceived(alert)) => Self::Distrusts(format!("{alert:?}")),
            Some(TlsError::InvalidMessage(_)) => Self::SpeaksPlain,
            Some(other) => Self::Broken(other.to_string()),
        }
    }
}

/// Why a client was not let in, from what its side sees; `None` when the line just broke and another try
/// may do better.
pub(crate) fn seen_by_client(error: &io::Error) -> Option<String> {
    const NEW_ONES: &str = "make new ones with `medevo-coord certs init` in a new directory";
    Some(match tls_error(error)? {
        TlsError::InvalidCertificate(reason) if is_a_matter_of_dates(reason) => format!(
            "the coordinator's certificate has expired or does not hold yet; check the clocks, or {NEW_ONES}"
        ),
        TlsError::InvalidCertificate(reason) => format!(
            "the coordinator's certificate is not one that this worker's ca.pem vouches for ({reason}); give \
             both sides the files of one `medevo-coord certs init`"
        ),
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
            format!("the coordinator says that this worker's certificate has expired; {NEW_ONES}")
        }
        TlsError::AlertReceived(alert) => format!(
            "the coordinator did not accept this worker's certificate ({alert:?}); give both sides the files \
             of one `medevo-coord certs init`"
        ),
        TlsError::InvalidMessage(_) => {
            "the coordinator does not speak TLS; leave --certificates out, or \
                                        start the run with `cluster.certificates`"
                .to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

/// The TLS error inside an I/O error.
fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn is_a_matter_of_dates(reason: &CertificateError) -> bool {
    matches!(
        reason,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}
