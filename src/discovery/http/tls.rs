//! TLS to Patroni's REST API, etcd and HAProxy's statistics: the CA and the client certificate, read again when their
//! files change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

pub use crate::certificates::TlsError;
use crate::certificates::{FileBacked, certificates, private_key};

/// Paths of the certificate files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file of the authorities that sign the servers' certificates; the system's authorities if `None`.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A TLS problem with a server. Each variant needs a different fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// No known authority has signed the server's certificate.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate does not match the requested name or address.
    WrongName,
    /// The server requires a client certificate, and got none.
    CertificateRequired,
    /// The server rejects the client certificate.
    CertificateRefused,
    /// The server does not use TLS.
    NoTls,
    /// Any other problem, with the message of rustls.
    Other(String),
}

impl TlsProblem {
    /// Converts one link of an error's chain if it is an error of rustls, or an `io::Error` that contains one.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or(inner.and_then(|inner| inner.downcast_ref()));
        found.map(Self::from_rustls)
    }

    fn from_rustls(error: &rustls::Error) -> Self {
        use rustls::AlertDescription as Alert;
        use rustls::CertificateError as Certificate;
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                Certificate::UnknownIssuer | Certificate::BadSignature => Self::UnknownAuthority,
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => Self::Expired,
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => Self::WrongName,
                _ => Self::Other(error.to_string()),
            },
            rustls::Error::AlertReceived(Alert::CertificateRequired | Alert::NoCertificate) => {
                Self::CertificateRequired
            }
            rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied,
            ) => Self::CertificateRefused,
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            other => Self::Other(other.to_string()),
        }
    }
}

/// The TLS settings in force.
pub(crate) struct Tls(FileBacked<Arc<ClientConfig>>);

impl Tls {
    /// Loads the TLS files. `server` names the servers in log lines.
    pub(crate) fn new(server: &'static str, files: TlsFiles) -> Result<Self, TlsError> {
        let identity = files.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let read = files.ca.iter().chain(identity).cloned().collect();
        FileBacked::new(server, read, move || load(&files)).map(Self)
    }

    /// Returns the settings. Reads them again if a file has changed; if that fails, logs the failure and keeps the
    /// former settings.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.current()
    }
}

fn load(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| TlsError::Malformed {
                    file: file.clone(),
                    what: format!("not a certificate authority: {error}"),
                })?;
            }
        }
        None => {
            // Some system stores contain certificates that rustls rejects; the others are used.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?,
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

    use super::*;

    /// Wraps the error as the handshake does.
    fn converted(error: Error) -> Option<TlsProblem> {
        TlsProblem::of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn problems_that_need_different_fixes_differ() {
        for (error, trouble) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                TlsProblem::UnknownAuthority,
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                TlsProblem::Expired,
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidYet),
                TlsProblem::Expired,
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                TlsProblem::WrongName,
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                TlsProblem::CertificateRequired,
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                TlsProblem::CertificateRefused,
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                TlsProblem::NoTls,
            ),
        ] {
            assert_eq!(converted(error), Some(trouble));
        }
        let other = converted(Error::InvalidCertificate(CertificateError::Revoked));
        assert!(matches!(other, Some(TlsProblem::Other(_))), "{other:?}");
        assert_eq!(TlsProblem::of(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
