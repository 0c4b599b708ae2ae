//! Sends one GET before a deadline, over TCP or TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::discovery::patroni::tls::{Tls, TlsError, TlsFiles, TlsProblem};
use crate::metrics::{Metrics, Outcome};
use crate::resolver::{Resolver, Unresolved};

/// Time for one request, connecting included. A stopped Patroni accepts the connection and never answers.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest answer. `/cluster` of a large cluster has a few KiB.
const MAX_BODY: usize = 1024 * 1024;

/// A client of Patroni's REST API. Clones share its TLS settings.
#[derive(Clone)]
pub struct Client {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    resolver: Resolver,
}

/// An answer with any HTTP status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Whole body.
    pub body: Bytes,
}

/// The reason for which there is no usable answer. It is no evidence about the leader.
#[derive(Debug, Error)]
pub enum Unreachable {
    /// The URL is not http or https with a host.
    #[error("{0:?} is not a usable URL (example: http://10.0.0.7:8008)")]
    BadUrl(String),
    /// Refused or unreachable.
    #[error("{0}")]
    Connect(#[source] std::io::Error),
    /// The name does not resolve, and never has since pgnorth started.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Handshake(#[source] std::io::Error),
    /// The connection broke, or the answer is not HTTP, or it is too long.
    #[error("no valid HTTP answer: {0}")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deadline passed.
    #[error("no answer within 1 s")]
    TimedOut,
    /// The answer is not Patroni's, or not this member's.
    #[error("{0}")]
    NotPatroni(String),
}

impl Unreachable {
    /// Returns the TLS problem in this error's chain, if there is one. A server that requires a client certificate
    /// reports that only after the handshake, so it may be behind any variant.
    pub fn tls_problem(&self) -> Option<TlsProblem> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(trouble) = TlsProblem::of(error) {
                return Some(trouble);
            }
            next = error.source();
        }
        None
    }
}

impl Client {
    /// Reads the TLS files, if any are given.
    pub fn new(files: TlsFiles, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        Ok(Self {
            tls: Arc::new(Tls::new(files)?),
            metrics,
            resolver: Resolver::default(),
        })
    }

    /// Sends GET `path` to `base` and waits for the answer until the deadline. Cancel-safe: the connection is closed.
    pub async fn get(&self, base: &str, path: &str) -> Result<Answer, Unreachable> {
        let answer = tokio::time::timeout(DEADLINE, self.attempt(base, path)).await;
        let answer = answer.unwrap_or(Err(Unreachable::TimedOut));
        self.metrics.probed(match answer {
            Ok(_) => Outcome::Ok,
            Err(Unreachable::TimedOut) => Outcome::TimedOut,
            Err(_) => Outcome::Failed,
        });
        answer
    }

    async fn attempt(&self, base: &str, path: &str) -> Result<Answer, Unreachable> {
        let bad = || Unreachable::BadUrl(base.to_owned());
        let url = Url::parse(base).map_err(|_| bad())?;
        let host = url.host_str().ok_or_else(bad)?;
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = format!("{host}:{port}");
        let targets = self.targets(&bare, port, path == "/primary").await?;
        let tcp = TcpStream::connect(&targets[..]).await.map_err(Unreachable::Connect)?;
        match url.scheme() {
            "http" => exchange(tcp, &authority, path).await,
            "https" => {
                let name = ServerName::try_from(bare).map_err(|_| bad())?;
                let tls = TlsConnector::from(self.tls.config());
                let stream = tls.connect(name, tcp).await.map_err(Unreachable::Handshake)?;
                exchange(stream, &authority, path).await
            }
            _ => Err(bad()),
        }
    }

    /// Resolves the host. If answers name their member, the last known address is used when the name server fails,
    /// so that members stay reachable.
    async fn targets(&self, host: &str, port: u16, names_its_member: bool) -> Result<Vec<SocketAddr>, Unreachable> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let addresses = match names_its_member {
            true => self.resolver.resolve_or_recall(host, DEADLINE).await?,
            false => self.resolver.resolve(host, DEADLINE).await?,
        };
        Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }
}

async fn exchange<S>(stream: S, authority: &str, path: &str) -> Result<Answer, Unreachable>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Unreachable::Http(error.into());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get(path)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Unreachable::Http(error.into()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(Unreachable::Http)?.to_bytes();
        Ok(Answer { status, body })
    };
    tokio::pin!(answer);
    // The connection is driven in this function, so it ends with the request.
    tokio::select! {
        answer = &mut answer => answer,
        result = connection => match result {
            Ok(()) => answer.await,
            Err(error) => Err(broken(error)),
        },
    }
}
