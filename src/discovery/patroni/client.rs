//! One GET before a deadline, over TCP or TLS.

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

use crate::discovery::patroni::tls::{Tls, TlsError, TlsFiles, TlsTrouble};
use crate::metrics::{Metrics, Outcome};
use crate::resolver::{Resolver, Unresolved};

/// One request, connecting included. A stopped Patroni accepts and never answers.
const DEADLINE: Duration = Duration::from_secs(1);
/// `/cluster` of a large cluster has a few KiB; nothing sensible is longer than this.
const MAX_BODY: usize = 1024 * 1024;

/// A client of Patroni's REST API. Clones share its TLS settings.
#[derive(Clone)]
pub struct Client {
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    resolver: Resolver,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no usable answer. It says nothing about who leads.
#[derive(Debug, Error)]
pub enum Silence {
    /// The URL cannot be asked.
    #[error("{0:?} is not a URL that can be asked (good: http://10.0.0.7:8008)")]
    BadUrl(String),
    /// Refused or unreachable.
    #[error("{0}")]
    Connect(#[source] std::io::Error),
    /// The name does not resolve, and never has.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// TLS is not to be had with these files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Handshake(#[source] std::io::Error),
    /// The connection broke, or what came is not HTTP, or it is too long.
    #[error("no valid HTTP answer: {0}")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came in time.
    #[error("no answer within 1 s")]
    TimedOut,
    /// An answer that is not Patroni's, or not this member's.
    #[error("{0}")]
    NotPatroni(String),
}

impl Silence {
    /// What is wrong with TLS, if that is what is wrong. A server that wants a client certificate says so only once the handshake is over.
    pub fn tls_trouble(&self) -> Option<TlsTrouble> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(trouble) = TlsTrouble::of(error) {
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

    /// GET of `path` below `base`, before the deadline. Cancel-safe: the connection goes with it.
    pub async fn get(&self, base: &str, path: &str) -> Result<Answer, Silence> {
        let answer = tokio::time::timeout(DEADLINE, self.attempt(base, path)).await;
        let answer = answer.unwrap_or(Err(Silence::TimedOut));
        self.metrics.probed(match answer {
            Ok(_) => Outcome::Ok,
            Err(Silence::TimedOut) => Outcome::TimedOut,
            Err(_) => Outcome::Failed,
        });
        answer
    }

    async fn attempt(&self, base: &str, path: &str) -> Result<Answer, Silence> {
        let bad = || Silence::BadUrl(base.to_owned());
        let url = Url::parse(base).map_err(|_| bad())?;
        let host = url.host_str().ok_or_else(bad)?;
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = format!("{host}:{port}");
        let targets = self.targets(&bare, port, path == "/primary").await?;
        let tcp = TcpStream::connect(&targets[..]).await.map_err(Silence::Connect)?;
        match url.scheme() {
            "http" => exchange(tcp, &authority, path).await,
            "https" => {
                let name = ServerName::try_from(bare).map_err(|_| bad())?;
                let tls = TlsConnector::from(self.tls.config());
                let stream = tls.connect(name, tcp).await.map_err(Silence::Handshake)?;
                exchange(stream, &authority, path).await
            }
            _ => Err(bad()),
        }
    }

    /// An answer that `names_its_member` may come from where the name led last: a name server that fails does not make members silent.
    async fn targets(&self, host: &str, port: u16, names_its_member: bool) -> Result<Vec<SocketAddr>, Silence> {
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

async fn exchange<S>(stream: S, authority: &str, path: &str) -> Result<Answer, Silence>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Silence::Http(error.into());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get(path)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Silence::Http(error.into()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(Silence::Http)?.to_bytes();
        Ok(Answer { status, body })
    };
    tokio::pin!(answer);
    // The connection is driven here, so nothing of it outlives the request.
    tokio::select! {
        answer = &mut answer => answer,
        result = connection => match result {
            Ok(()) => answer.await,
            Err(error) => Err(broken(error)),
        },
    }
}
