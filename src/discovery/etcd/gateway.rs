//! One endpoint of etcd: its JSON gateway, a connection for requests, and a second connection for the watch.
//!
//! Every request has a deadline. `messages` builds the requests and parses the answers.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use thiserror::Error;

use crate::discovery::etcd::messages::{self, LeaseTime, Listing, Refused, WatchMessage};
use crate::discovery::http::{BodyStream, Connection, Connector, Unreachable};
use crate::leader::BaseUrl;

/// Deadline of one request, including the connection.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
/// Deadline of an authentication. etcd needs a tenth of a second to hash a password, and after a restart of etcd many
/// clients authenticate at the same time.
const AUTHENTICATION: Duration = Duration::from_secs(5);
/// Longest accepted answer. The keys of a scope have a few KiB, and `history` may be as large as all others together.
const LONGEST: usize = 8 * 1024 * 1024;

/// User and password for etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The file with the password. It is read at each authentication, so a new password needs no restart.
    pub password_file: PathBuf,
}

/// A failed request to an endpoint.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// There is no answer, or it is not HTTP.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// etcd answers with an error, or the answer is not etcd's.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The password cannot be read.
    #[error("cannot read the password file {}: {error}", file.display())]
    PasswordFile {
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
}

impl GatewayError {
    /// Returns true if the user may not read the keys.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(Refused::Permission(_)))
    }

    /// Returns true if the user, the password or the token is missing or wrong.
    pub fn is_login(&self) -> bool {
        matches!(
            self,
            Self::PasswordFile { .. } | Self::Refused(Refused::Password | Refused::Token(_))
        )
    }

    /// Returns true if only an operator can fix the error, so that attempts may be rare.
    pub(super) fn needs_an_operator(&self) -> bool {
        matches!(
            self,
            Self::PasswordFile { .. } | Self::Refused(Refused::Password | Refused::Permission(_) | Refused::NotEtcd(_))
        )
    }
}

/// Access to the endpoints. It opens sessions, and keeps the token that they share.
pub struct Gateway {
    connector: Connector,
    login: Option<Login>,
    /// Token, which is valid at every endpoint.
    token: Mutex<Option<HeaderValue>>,
}

/// A connection to one endpoint for requests.
pub struct Session<'a> {
    gateway: &'a Gateway,
    url: BaseUrl,
    connection: Option<Connection>,
}

/// An open watch.
pub struct Watch {
    stream: BodyStream,
    received: Vec<u8>,
}

impl Gateway {
    /// Returns a gateway that has not sent any request yet.
    pub fn new(connector: Connector, login: Option<Login>) -> Self {
        Self {
            connector,
            login,
            token: Mutex::new(None),
        }
    }

    /// Returns a session with this endpoint. It connects at its first request.
    pub fn session(&self, url: &BaseUrl) -> Session<'_> {
        Session {
            gateway: self,
            url: url.clone(),
            connection: None,
        }
    }

    /// Opens a connection. While the endpoint's name cannot be resolved, its last known address is used only with TLS:
    /// the certificate proves that no other etcd has this address now.
    async fn connect(&self, url: &BaseUrl) -> Result<Connection, Unreachable> {
        let recall = url.starts_with("https://");
        self.connector.connect(url, recall, DEADLINE).await
    }

    fn token(&self) -> Option<HeaderValue> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_token(&self, token: Option<HeaderValue>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn request(&self, path: &'static str, body: &Value) -> Result<Request<Full<Bytes>>, GatewayError> {
        let mut request = Request::post(path).header(CONTENT_TYPE, "application/json");
        if let Some(token) = self.token() {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::from(body.to_string()));
        Ok(request.map_err(|error| Unreachable::Http(error.into()))?)
    }
}

impl Session<'_> {
    /// Lists the keys with this prefix, at a revision that a majority of etcd's members has confirmed during the
    /// request.
    pub async fn list(&mut self, prefix: &str, keys_only: bool) -> Result<Listing, GatewayError> {
        let body = self.ask("/v3/kv/range", &messages::list(prefix, keys_only)).await?;
        Ok(messages::read_listing(&body)?)
    }

    /// Asks for the remaining time of a lease. Each endpoint gets the answer from etcd's leader. The request needs no
    /// permission.
    pub async fn lease_time(&mut self, id: i64) -> Result<LeaseTime, GatewayError> {
        let body = self.ask("/v3/lease/timetolive", &messages::lease_time(id)).await?;
        Ok(messages::read_lease_time(&body)?)
    }

    /// Watches the keys with this prefix, starting at this revision, on a second connection. etcd has confirmed the
    /// watch when this returns.
    pub async fn watch(&mut self, prefix: &str, revision: i64) -> Result<Watch, GatewayError> {
        let begin = async {
            let request = self.gateway.request("/v3/watch", &messages::watch(prefix, revision))?;
            let connection = self.gateway.connect(&self.url).await?;
            let stream = match connection.stream(request, LONGEST).await? {
                Ok(stream) => stream,
                Err(answer) => return Err(messages::read_error(answer.status.as_u16(), &answer.body).into()),
            };
            let mut watch = Watch {
                stream,
                received: Vec::new(),
            };
            match watch.next().await? {
                WatchMessage::Created => Ok(watch),
                WatchMessage::Changes(_) | WatchMessage::Compacted => Err(Refused::NotEtcd("/v3/watch").into()),
            }
        };
        within(DEADLINE, begin).await
    }

    /// Sends a request, after an authentication if a token is needed and missing. If etcd rejects the token, gets a new
    /// one and sends the request again.
    async fn ask(&mut self, path: &'static str, body: &Value) -> Result<Bytes, GatewayError> {
        if self.gateway.login.is_some() && self.gateway.token().is_none() {
            self.authenticate().await?;
        }
        match within(DEADLINE, self.exchange(path, body)).await {
            Err(GatewayError::Refused(Refused::Token(_))) if self.gateway.login.is_some() => {
                self.authenticate().await?;
                within(DEADLINE, self.exchange(path, body)).await
            }
            answer => answer,
        }
    }

    /// Gets a new token for all sessions; a placeholder if authentication is disabled in etcd.
    async fn authenticate(&mut self) -> Result<(), GatewayError> {
        let Some(Login { user, password_file }) = &self.gateway.login else {
            return Ok(());
        };
        let password = std::fs::read_to_string(password_file).map_err(|error| GatewayError::PasswordFile {
            file: password_file.clone(),
            error,
        })?;
        let body = json!({"name": user, "password": password.trim_end_matches(['\r', '\n'])});
        self.gateway.set_token(None);
        let token = match within(AUTHENTICATION, self.exchange("/v3/auth/authenticate", &body)).await {
            Ok(answer) => messages::read_token(&answer)?,
            Err(GatewayError::Refused(Refused::NoAuthentication)) => String::from("none"),
            Err(error) => return Err(error),
        };
        let token = HeaderValue::from_str(&token);
        let mut token = token.map_err(|_| Refused::NotEtcd("/v3/auth/authenticate"))?;
        token.set_sensitive(true);
        self.gateway.set_token(Some(token));
        Ok(())
    }

    /// Sends one request on the open connection, or on a new one if there is none or it fails. Cancelling closes the
    /// connection.
    async fn exchange(&mut self, path: &'static str, body: &Value) -> Result<Bytes, GatewayError> {
        let mut answer = None;
        if let Some(mut open) = self.connection.take()
            && let Ok(given) = open.ask(self.gateway.request(path, body)?, LONGEST).await
        {
            answer = Some((given, open));
        }
        let (answer, connection) = match answer {
            Some(answer) => answer,
            None => {
                let mut new = self.gateway.connect(&self.url).await?;
                (new.ask(self.gateway.request(path, body)?, LONGEST).await?, new)
            }
        };
        self.connection = Some(connection);
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(messages::read_error(answer.status.as_u16(), &answer.body).into()),
        }
    }
}

impl Watch {
    /// Returns the next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<WatchMessage, GatewayError> {
        loop {
            // Each message is one line.
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(messages::read_watch(&line)?);
            }
            if LONGEST < self.received.len() {
                return Err(Refused::NotEtcd("/v3/watch").into());
            }
            match self.stream.next().await? {
                Some(piece) => self.received.extend_from_slice(&piece),
                None => return Err(Refused::Other("etcd ended the watch".into()).into()),
            }
        }
    }
}

/// Awaits an exchange for at most `deadline`.
async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, GatewayError>>,
) -> Result<T, GatewayError> {
    let answer = tokio::time::timeout(deadline, exchange).await;
    answer.unwrap_or(Err(Unreachable::TimedOut(deadline).into()))
}

/// A listing, and the remaining time of the leader key's lease.
pub(super) struct CheckedListing {
    pub(super) listing: Listing,
    /// The lease; `None` if there is no leader key.
    pub(super) lease: Option<CheckedLease>,
}

/// The answer about the lease of the leader key.
#[derive(Clone, Copy)]
pub(super) struct CheckedLease {
    /// ID of the lease; 0 if the key has none, and thus does not expire.
    pub(super) id: i64,
    pub(super) time: LeaseTime,
    /// Time at which the request was sent.
    pub(super) sent: Instant,
    /// Time of the answer.
    pub(super) answered: Instant,
}

impl Session<'_> {
    /// Lists the keys, and asks for the remaining time of the leader key's lease.
    pub(super) async fn check(&mut self, prefix: &str, keys_only: bool) -> Result<CheckedListing, GatewayError> {
        let begun = Instant::now();
        let listing = self.list(prefix, keys_only).await?;
        let mut keys = listing.keys.iter();
        let leader = keys.find(|key| key.key.strip_prefix(prefix) == Some("leader"));
        let lease = match leader.map(|leader| leader.lease) {
            None => None,
            Some(0) => Some(CheckedLease {
                id: 0,
                time: LeaseTime { left: 0, granted: 0 },
                sent: begun,
                answered: Instant::now(),
            }),
            Some(id) => {
                let sent = Instant::now();
                Some(CheckedLease {
                    id,
                    time: self.lease_time(id).await?,
                    sent,
                    answered: Instant::now(),
                })
            }
        };
        Ok(CheckedListing { listing, lease })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::discovery::http::tls::TlsFiles;

    // RFC 6761: .invalid never resolves.
    #[tokio::test]
    async fn while_no_name_server_answers_only_https_connects_to_the_last_known_address() {
        const ATTEMPTS: usize = 10;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connector = Connector::new("etcd", TlsFiles::default()).unwrap();
        connector.resolver().remember("etcd.invalid", address.ip());
        let gateway = Gateway::new(connector, None);
        for (scheme, attempts, connects) in [("http", 1, false), ("https", ATTEMPTS, true)] {
            let url = BaseUrl::parse(&format!("{scheme}://etcd.invalid:{}", address.port())).unwrap();
            let mut connected = false;
            // On a busy machine, the deadline may be over before the last known address is used.
            for _ in 0..attempts {
                let mut session = gateway.session(&url);
                connected |= tokio::select! {
                    biased;
                    accepted = listener.accept() => accepted.is_ok(),
                    answer = session.list("/", false) => answer.is_ok(),
                };
                if connected {
                    break;
                }
            }
            assert_eq!(connected, connects, "{scheme}");
        }
    }
}
