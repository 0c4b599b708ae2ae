//! Settings that name files of certificates and keys.

use std::path::PathBuf;

use super::reader::Reader;
use super::{Setting, parse, table};

/// PEM files. pgnorth reads them at start, where an unusable file is an error, and again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates that the servers' certificates are checked against; by default, the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate for servers that require one.
    pub identity: Option<Identity>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

pub(super) fn patroni_tls(reader: &mut Reader<'_>) -> ClientTls {
    ClientTls {
        ca: reader.option(&table::PATRONI_CA, parse::file),
        identity: identity(reader, &table::PATRONI_CERT, &table::PATRONI_KEY),
    }
}

pub(super) fn identity(reader: &mut Reader<'_>, cert: &'static Setting, key: &'static Setting) -> Option<Identity> {
    both(reader, cert, key);
    let (cert, key) = (reader.option(cert, parse::file), reader.option(key, parse::file));
    cert.zip(key).map(|(cert, key)| Identity { cert, key })
}

/// Rejects one of two settings without the other.
pub(super) fn both(reader: &mut Reader<'_>, first: &'static Setting, second: &'static Setting) {
    for (one, other) in [(first, second), (second, first)] {
        if !reader.is_set(other) {
            let problem = format!("set {} too; each requires the other", other.flag_and_variable());
            reader.refuse_if_set(one, problem);
        }
    }
}
