//! TLS to Patroni's REST API: the operator's CA and client certificate, read again when the files change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

pub use crate::certificates::TlsError;
use crate::certificates::{Reloaded, certificates, private_key};

/// Where the certificates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the authorities that sign members' certificates; the system's own where none is given.
    pub ca: Option<PathBuf>,
    /// PEM: the client's certificate chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is wrong between a member's TLS and ours, told apart by what somebody can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsTrouble {
    /// No authority that we know has signed the member's certificate.
    UnknownAuthority,
    /// It is out of date, or not valid yet.
    Expired,
    /// It is for other names or addresses than the one that was asked.
    WrongName,
    /// The member wants a client certificate, and got none.
    CertificateRequired,
    /// The member does not take the client certificate.
    CertificateRefused,
    /// What answers does not speak TLS.
    NoTls,
    /// Anything else, in rustls' words.
    Other(String),
}

impl TlsTrouble {
    /// From one link of an error's chain: rustls' own error hides in an `io::Error`.
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
pub(crate) struct Tls(Reloaded<Arc<ClientConfig>>);

impl Tls {
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let identity = files.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let read = files.ca.iter().chain(identity).cloned().collect();
        Reloaded::new("Patroni's REST API", read, move || load(&files)).map(Self)
    }

    /// The settings, read again if a file changed. Files that are half written keep the former settings in force, and say so.
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
            // Some system stores hold certificates that rustls refuses; the others serve.
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

    /// As the handshake wraps it.
    fn told(error: Error) -> Option<TlsTrouble> {
        TlsTrouble::of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn troubles_are_told_apart_by_what_mends_them() {
        for (error, trouble) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                TlsTrouble::UnknownAuthority,
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                TlsTrouble::Expired,
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidYet),
                TlsTrouble::Expired,
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                TlsTrouble::WrongName,
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                TlsTrouble::CertificateRequired,
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                TlsTrouble::CertificateRefused,
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                TlsTrouble::NoTls,
            ),
        ] {
            assert_eq!(told(error), Some(trouble));
        }
        let other = told(Error::InvalidCertificate(CertificateError::Revoked));
        assert!(matches!(other, Some(TlsTrouble::Other(_))), "{other:?}");
        assert_eq!(TlsTrouble::of(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
