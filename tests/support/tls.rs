//! The rig's own certificate authority, and one server certificate for every server of the rig.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::clock::Clock;
use super::process::run;

/// The paths of certificates and keys.
#[derive(Clone)]
pub struct Tls {
    pub authority: PathBuf,
    pub authority_key: PathBuf,
    pub certificate: PathBuf,
    /// Readable by root alone.
    pub key: PathBuf,
    /// A copy of the key, because PostgreSQL must own its key.
    pub postgres_key: PathBuf,
}

impl Tls {
    /// Makes the authority and a server's certificate for localhost and these addresses.
    pub fn make(folder: &Path, addresses: &[Ipv4Addr]) -> Self {
        let tls = Self {
            authority: folder.join("ca.crt"),
            authority_key: folder.join("ca.key"),
            certificate: folder.join("server.crt"),
            key: folder.join("server.key"),
            postgres_key: folder.join("postgres.key"),
        };
        let [ca, ca_key, certificate, key, postgres_key] = [
            &tls.authority,
            &tls.authority_key,
            &tls.certificate,
            &tls.key,
            &tls.postgres_key,
        ]
        .map(|p| path(p));
        // Valid since yesterday: a test may step a clock back.
        let clock = Clock::create(folder, "tls");
        clock.step(-24 * 60 * 60);
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3";
        let new: Vec<&str> = new.split(' ').collect();
        openssl(
            &clock,
            &[&new[..], &["-subj", "/CN=rig authority", "-keyout", ca_key, "-out", ca]].concat(),
        );
        let server = [
            "-subj",
            "/CN=rig server",
            "-keyout",
            key,
            "-out",
            certificate,
            "-CA",
            ca,
            "-CAkey",
            ca_key,
        ];
        let addresses: String = addresses.iter().map(|address| format!(",IP:{address}")).collect();
        let names = format!("subjectAltName=DNS:localhost,IP:127.0.0.1{addresses}");
        let extensions = ["-addext", "basicConstraints=critical,CA:false", "-addext", &names];
        openssl(&clock, &[&new[..], &server, &extensions].concat());
        run(
            "install",
            &["-o", "postgres", "-g", "postgres", "-m", "600", key, postgres_key],
        );
        tls
    }

    /// Returns a client side that trusts this authority only.
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.authority).expect("read the authority's certificate");
        roots.add(authority).expect("trust the authority");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// Runs openssl at the time of this clock.
fn openssl(clock: &Clock, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    clock.apply(&mut command);
    let output = command.args(arguments).output().expect("run openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
}

/// Returns a path of the rig as text: all of them are ASCII.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are ASCII")
}
