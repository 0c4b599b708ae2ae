//! Certificates and keys in PEM files, and the values built from them. A value is rebuilt when a file changes, so that
//! a renewed certificate needs no restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tracing::{info, warn};

/// A certificate file that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file has no usable certificate, or no usable key.
    #[error("{}: {what}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The problem.
        what: String,
    },
    /// Certificate and key do not match, or cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A value built from files, and rebuilt when one of them changes.
pub(crate) struct FileBacked<T> {
    /// The purpose of the files, for log lines.
    purpose: &'static str,
    files: Vec<PathBuf>,
    build: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    built: Mutex<Built<T>>,
}

struct Built<T> {
    value: T,
    modified: Vec<Option<SystemTime>>,
}

impl<T: Clone> FileBacked<T> {
    /// Builds the value for the first time.
    pub(crate) fn new(
        purpose: &'static str,
        files: Vec<PathBuf>,
        build: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let built = Built {
            modified: modified(&files),
            value: build()?,
        };
        Ok(Self {
            purpose,
            files,
            build: Box::new(build),
            built: Mutex::new(built),
        })
    }

    /// Returns the value, rebuilt if a file has changed. If the files cannot be used, for example because they are half
    /// written, the former value stays in force.
    pub(crate) fn current(&self) -> T {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = modified(&self.files);
        if modified != built.modified {
            built.modified = modified;
            match (self.build)() {
                Ok(value) => {
                    info!("the TLS files for {} changed; the new ones are in use", self.purpose);
                    built.value = value;
                }
                Err(error) => warn!(
                    "the TLS files for {} changed but cannot be used; the former ones stay in use: {error}",
                    self.purpose
                ),
            }
        }
        built.value.clone()
    }
}

fn modified(files: &[PathBuf]) -> Vec<Option<SystemTime>> {
    let modified = |file: &PathBuf| fs::metadata(file).and_then(|meta| meta.modified()).ok();
    files.iter().map(modified).collect()
}

/// Reads a chain of at least one certificate.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(malformed(file, "contains no certificate in PEM format")),
        Err(error) => Err(malformed(file, &error.to_string())),
    }
}

/// Reads a private key.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|error| malformed(file, &format!("contains no usable private key in PEM format: {error}")))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        error,
    })
}

fn malformed(file: &Path, what: &str) -> TlsError {
    TlsError::Malformed {
        file: file.to_owned(),
        what: what.to_owned(),
    }
}
