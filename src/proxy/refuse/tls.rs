//! TLS for refusals: the certificate, and a client's connection after its handshake. pgnorth does not terminate the TLS
//! of sessions that reach a leader.

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::self_signed;
use crate::certificates::{FileBacked, TlsError, certificates, private_key};
use crate::proxy::forward::Socket;

/// Maximum number of handshakes begun in one second; further TLS clients are closed without the error. Handshakes cost
/// CPU time that sessions need: one signature with RSA 2048 takes 0.7 ms.
const HANDSHAKES: u32 = 256;
/// The only ALPN protocol of PostgreSQL clients (PostgreSQL's manual, "Protocol Flow"); any other gets a TLS alert.
const PROTOCOL: &[u8] = b"postgresql";

/// The certificate for TLS clients that are refused, and the limit of handshakes.
pub struct RefusalTls {
    config: FileBacked<Arc<ServerConfig>>,
    begun: Mutex<(Instant, u32)>,
}

/// A client's connection inside TLS.
pub(super) struct Encrypted<'a> {
    client: &'a Socket,
    tls: Box<ServerConnection>,
}

impl std::fmt::Debug for RefusalTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RefusalTls").finish_non_exhaustive()
    }
}

impl RefusalTls {
    /// Uses the certificate chain and key in these PEM files, which are read again when they change. Without files,
    /// generates a self-signed certificate.
    pub fn new(files: Option<(PathBuf, PathBuf)>) -> Result<Self, TlsError> {
        let read = files.iter().flat_map(|(chain, key)| [chain, key]).cloned().collect();
        let make = move || match &files {
            Some((chain, key)) => config(certificates(chain)?, private_key(key)?),
            None => {
                let made = self_signed()
                    .map_err(|_| rustls::Error::General("cannot generate a self-signed certificate".into()));
                let (certificate, key) = made?;
                config(vec![certificate], key)
            }
        };
        Ok(Self {
            config: FileBacked::new("refusals (--refusal-cert)", read, make)?,
            begun: Mutex::new((Instant::now(), 0)),
        })
    }

    /// Performs the handshake that begins with the bytes `received`. The caller bounds the time.
    pub(super) async fn accept<'a>(&self, client: &'a Socket, received: &[u8]) -> io::Result<Encrypted<'a>> {
        if !self.may_begin(Instant::now()) {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        let tls = ServerConnection::new(self.config.current()).map_err(io::Error::other)?;
        let mut encrypted = Encrypted {
            client,
            tls: Box::new(tls),
        };
        encrypted.process(received).await?;
        while encrypted.tls.is_handshaking() {
            encrypted.flush().await?;
            if !encrypted.read_more().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        encrypted.flush().await?;
        Ok(encrypted)
    }

    fn may_begin(&self, now: Instant) -> bool {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(begun.0) >= Duration::from_secs(1) {
            *begun = (now, 0);
        }
        begun.1 += 1;
        begun.1 <= HANDSHAKES
    }
}

fn config(
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A refused client does not resume its TLS session, so it gets no ticket.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

impl Encrypted<'_> {
    /// Returns the bytes that the client sent, decrypted; empty at its end. Cancel-safe.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut plain = vec![0; 2048];
            match self.tls.reader().read(&mut plain) {
                Ok(read) => {
                    plain.truncate(read);
                    return Ok(plain);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !self.read_more().await? {
                return Ok(Vec::new());
            }
        }
    }

    /// Sends all bytes, and the end of the TLS stream. Not cancel-safe.
    pub(super) async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.tls.send_close_notify();
        self.flush().await
    }

    /// Reads from the client. Returns true if bytes came.
    async fn read_more(&mut self) -> io::Result<bool> {
        let bytes = self.client.receive().await?;
        self.process(&bytes).await?;
        Ok(!bytes.is_empty())
    }

    async fn process(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The client gets TLS's alert, which names the reason.
                self.flush().await?;
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut encrypted = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut encrypted)?;
        }
        self.client.send(&encrypted).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rustls::pki_types::CertificateDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::proxy::refuse::certificate::NAME;

    /// Writes a new certificate and its key as PEM files, and returns the certificate. `age` makes the files differ in
    /// time.
    fn write_pair(chain: &Path, key: &Path, age: u64) -> CertificateDer<'static> {
        let (certificate, private_key) = self_signed().unwrap();
        for (file, kind, der) in [
            (chain, "CERTIFICATE", certificate.as_ref()),
            (key, "PRIVATE KEY", private_key.secret_der()),
        ] {
            let text = STANDARD.encode(der);
            fs::write(file, format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")).unwrap();
            let modified = SystemTime::now() - Duration::from_secs(age);
            File::open(file).unwrap().set_modified(modified).unwrap();
        }
        certificate
    }

    /// Performs a handshake in memory with a client that trusts only `authority`. Returns true if the client verified
    /// the certificate of `tls`.
    fn verifies(tls: &RefusalTls, authority: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(tls.config.current()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn the_operators_certificate_is_shown_and_a_renewed_one_needs_no_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let first = write_pair(&chain, &key, 60);
        let tls = RefusalTls::new(Some((chain.clone(), key.clone()))).unwrap();
        assert!(verifies(&tls, &first));
        let second = write_pair(&chain, &key, 30);
        assert!(verifies(&tls, &second));
        assert!(!verifies(&tls, &first));
        fs::write(&chain, "half").unwrap();
        assert!(verifies(&tls, &second), "files that cannot be used change nothing");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let error = |chain: &Path, key: &Path| {
            let files = Some((chain.to_owned(), key.to_owned()));
            RefusalTls::new(files).unwrap_err().to_string()
        };
        assert!(
            error(&chain, &key).contains("tls.crt: No such file"),
            "{}",
            error(&chain, &key)
        );
        write_pair(&chain, &key, 0);
        assert!(
            error(&key, &key).contains("tls.key: contains no certificate"),
            "{}",
            error(&key, &key)
        );
        assert!(
            error(&chain, &chain).contains("tls.crt: contains no usable private key"),
            "{}",
            error(&chain, &chain)
        );
        let (other, unused) = (folder.path().join("other.key"), folder.path().join("other.crt"));
        write_pair(&unused, &other, 0);
        assert!(
            error(&chain, &other).contains("TLS cannot be set up"),
            "{}",
            error(&chain, &other)
        );
    }

    #[test]
    fn handshakes_are_counted_by_the_second() {
        let tls = RefusalTls::new(None).unwrap();
        let start = Instant::now();
        let begun = |at| {
            let now = start + Duration::from_millis(at);
            (0..1000).filter(|_| tls.may_begin(now)).count()
        };
        assert_eq!(begun(0), 256);
        assert_eq!(begun(900), 0);
        assert_eq!(begun(1100), 256);
    }
}
