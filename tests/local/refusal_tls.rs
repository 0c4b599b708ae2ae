//! A TLS client that cannot be served gets the reason, too: inside TLS.

use std::sync::Arc;
use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::proxy::Settings;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::refusal::{GSSENC_REQUEST, SSL_REQUEST, error_in, startup};
use super::support::{Backend, Rig, read_all, read_exactly, settings, within};

/// Checks no certificate, as drivers do with sslmode=prefer and require.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn encrypt(client: TcpStream, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let connecting = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), client);
    within("the handshake", connecting).await
}

/// Returns the error inside TLS, after which TLS is closed in order.
async fn error_inside(client: TcpStream) -> String {
    let mut client = encrypt(client, "postgresql").await.expect("a handshake");
    client.write_all(&startup()).await.unwrap();
    let mut answer = Vec::new();
    let end = within("the answer", client.read_to_end(&mut answer)).await;
    end.expect("an end by TLS, not a cut");
    error_in(&answer)
}

async fn without_hold() -> Rig {
    Rig::with_hold(Duration::ZERO, settings()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_requires_tls_does_not_read_that_the_server_has_none() {
    let rig = without_hold().await;
    for requests in [&[SSL_REQUEST][..], &[GSSENC_REQUEST, SSL_REQUEST]] {
        let mut client = rig.connect().await;
        let mut answer = Vec::new();
        for request in requests {
            client.write_all(request).await.unwrap();
            answer = read_exactly(&mut client, 1).await;
        }
        assert_eq!(answer, b"S");
        let text = error_inside(client).await;
        assert!(text.starts_with("57P03 "), "{text}");
        assert!(text.contains("nobody holds the lock"), "{text}");
    }
    rig.ends(Ending::HoldExpired, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_begins_with_tls_reads_the_reason() {
    let rig = without_hold().await;
    let text = error_inside(rig.connect().await).await;
    assert!(text.starts_with("57P03 "), "{text}");
    rig.ends(Ending::HoldExpired, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_tls_clients_get_53300() {
    let rig = Rig::with(Settings {
        max_sessions: 1,
        ..settings()
    })
    .await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let _first = rig.session(&backend).await;
    let text = error_inside(rig.connect().await).await;
    assert!(text.starts_with("53300 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_postgresqls_inside_tls_are_closed() {
    let rig = without_hold().await;
    let error = encrypt(rig.connect().await, "h2").await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    for opening in [&b"GET / HTTP/1.1\r\n\r\n"[..], &SSL_REQUEST, b"\x16\x03\x01"] {
        let mut client = encrypt(rig.connect().await, "postgresql").await.unwrap();
        client.write_all(opening).await.unwrap();
        let mut answer = Vec::new();
        let _cut_or_end = within("the close", client.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"", "{opening:?}");
    }
    let mut client = rig.connect().await;
    client.write_all(b"\x16garbage that is no handshake").await.unwrap();
    // At most TLS's alert.
    assert!(read_all(&mut client).await.0.len() <= 7);
    rig.ends(Ending::HoldExpired, 5).await;
}

/// sslnegotiation=direct of PostgreSQL 17: pgnorth passes on a beginning that is not PostgreSQL's, and the leader
/// judges it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_begins_with_tls_reaches_a_leader_that_is_there() {
    let (rig, backend) = Rig::routed().await;
    let hello = b"\x16\x03\x01\x00\x05hello";
    let mut client = rig.connect().await;
    client.write_all(hello).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, hello.len()).await, hello);
    leader.write_all(b"\x16\x03\x03").await.unwrap();
    assert_eq!(read_exactly(&mut client, 3).await, b"\x16\x03\x03");
}
