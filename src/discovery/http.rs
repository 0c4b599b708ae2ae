//! HTTP/1.1 over TCP or TLS, for Patroni's REST API and etcd's gateway: a connection, a request, an answer of bounded
//! size. It sets no deadline: each caller has its own.

pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use crate::discovery::http::tls::{Tls, TlsError, TlsFiles, TlsProblem};
use crate::resolver::{Resolver, Unresolved};
use crate::root_cause::root_cause;

/// The settings of new connections. Clones share TLS settings and resolved names.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<Tls>,
    resolver: Resolver,
}

/// One HTTP/1.1 connection, for one request at a time.
pub(in crate::discovery) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Future that moves the bytes while a request is under way, so that the connection needs no task. Dropping the
    /// future closes the connection.
    driver: Driver,
    authority: String,
}

type Driver = Fuse<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>;

/// An answer with any HTTP status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Whole body.
    pub body: Bytes,
}

/// The body of an answer that does not end, read in pieces.
pub(in crate::discovery) struct BodyStream {
    body: Incoming,
    connection: Connection,
}

/// The reason why there is no usable answer. It is not evidence about the leader.
#[derive(Debug, Error)]
pub enum Unreachable {
    /// The URL is not http or https with a host.
    #[error("{0:?} is not a usable URL (example: http://10.0.0.7:8008)")]
    BadUrl(String),
    /// The connection could not be opened.
    #[error("{0}")]
    Connect(#[source] std::io::Error),
    /// The name cannot be resolved, and there are no earlier addresses that may be used.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] std::io::Error),
    /// The connection broke, or the answer is not HTTP or is too long.
    #[error("no valid HTTP answer: {}", root_cause(&**.0))]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no answer within this deadline.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The answer is not Patroni's or not this member's, or Patroni reports that it cannot answer.
    #[error("{0}")]
    NotPatroni(String),
}

impl Unreachable {
    /// Returns the TLS problem in this error's chain, if there is one. A server that requires a client certificate
    /// reports that only after the handshake, so the problem may be behind any variant.
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

#[cfg(test)]
impl Connector {
    pub(in crate::discovery) fn resolver(&self) -> &Resolver {
        &self.resolver
    }
}

impl Connector {
    /// Reads the TLS files, if any are given. `server` names the servers in log lines.
    pub fn new(server: &'static str, files: TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            tls: Arc::new(Tls::new(server, files)?),
            resolver: Resolver::default(),
        })
    }

    /// Connects to the host of a base URL. A look-up of its name takes at most `within`; if it fails and `recall` is
    /// true, the last known addresses are used. Cancel-safe: cancelling closes the connection.
    pub(in crate::discovery) async fn connect(
        &self,
        base: &str,
        recall: bool,
        within: Duration,
    ) -> Result<Connection, Unreachable> {
        let bad = || Unreachable::BadUrl(base.to_owned());
        let url = Url::parse(base).map_err(|_| bad())?;
        let host = url.host_str().ok_or_else(bad)?;
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = format!("{host}:{port}");
        let targets = self.targets(&bare, port, recall, within).await?;
        let tcp = TcpStream::connect(&targets[..]).await.map_err(Unreachable::Connect)?;
        match url.scheme() {
            "http" => Connection::over(tcp, authority).await,
            "https" => {
                let name = ServerName::try_from(bare).map_err(|_| bad())?;
                let tls = TlsConnector::from(self.tls.config());
                let stream = tls.connect(name, tcp).await.map_err(Unreachable::Handshake)?;
                Connection::over(stream, authority).await
            }
            _ => Err(bad()),
        }
    }

    async fn targets(
        &self,
        host: &str,
        port: u16,
        recall: bool,
        within: Duration,
    ) -> Result<Vec<SocketAddr>, Unreachable> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let addresses = match recall {
            true => self.resolver.resolve_or_recall(host, within).await?,
            false => self.resolver.resolve(host, within).await?,
        };
        Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    /// Sends a GET on a new connection and returns the answer, of at most `longest` bytes. `within` limits only the
    /// look-up of the host's name. Cancel-safe: cancelling closes the connection.
    pub async fn get(&self, url: &Url, longest: usize, within: Duration) -> Result<Answer, Unreachable> {
        let mut connection = self.connect(url.as_str(), false, within).await?;
        let request = Request::get(&url[Position::BeforePath..]).body(Full::default());
        let request = request.map_err(|_| Unreachable::BadUrl(url.to_string()))?;
        connection.ask(request, longest).await
    }
}

impl Connection {
    async fn over<S>(stream: S, authority: String) -> Result<Self, Unreachable>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> = Box::pin(driver);
        Ok(Self {
            sender,
            driver: driver.fuse(),
            authority,
        })
    }

    /// Adds the header `Host` to a request, sends it, and waits for the head of the answer. After a cancellation, the
    /// connection is unusable.
    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unreachable> {
        let host = self
            .authority
            .parse()
            .map_err(|_| Unreachable::BadUrl(self.authority.clone()))?;
        request.headers_mut().insert(HOST, host);
        let sender = &mut self.sender;
        let answer = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        driven(&mut self.driver, answer).await?.map_err(broken)
    }

    /// Sends a request and returns its whole answer, of at most `longest` bytes.
    pub(in crate::discovery) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        longest: usize,
    ) -> Result<Answer, Unreachable> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), longest).collect();
        let body = driven(&mut self.driver, body).await?.map_err(Unreachable::Http)?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    }

    /// Sends a request whose answer does not end. Returns an answer with a status other than 2xx as the inner `Err`.
    pub(in crate::discovery) async fn stream(
        mut self,
        request: Request<Full<Bytes>>,
        longest: usize,
    ) -> Result<Result<BodyStream, Answer>, Unreachable> {
        let response = self.send(request).await?;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(Ok(BodyStream { body, connection: self }));
        }
        let body = driven(&mut self.driver, Limited::new(body, longest).collect()).await?;
        let body = body.map_err(Unreachable::Http)?.to_bytes();
        Ok(Err(Answer { status, body }))
    }
}

impl BodyStream {
    /// Returns the next piece of the body; `None` at its end. Cancel-safe.
    pub(in crate::discovery) async fn next(&mut self) -> Result<Option<Bytes>, Unreachable> {
        loop {
            let frame = driven(&mut self.connection.driver, self.body.frame()).await?;
            match frame.transpose().map_err(broken)? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // Trailers carry no data.
                    Err(_) => continue,
                },
            }
        }
    }
}

/// Awaits a part of an exchange, and moves the connection's bytes meanwhile. Cancel-safe if `part` is.
async fn driven<T>(driver: &mut Driver, part: impl Future<Output = T>) -> Result<T, Unreachable> {
    tokio::pin!(part);
    tokio::select! {
        answer = &mut part => Ok(answer),
        ended = driver => match ended {
            // The connection has closed, but bytes that it received may still be unread.
            Ok(()) => Ok(part.await),
            Err(error) => Err(broken(error)),
        },
    }
}

fn broken(error: hyper::Error) -> Unreachable {
    Unreachable::Http(error.into())
}
