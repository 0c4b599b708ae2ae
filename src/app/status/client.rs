//! A client for pgnorth's admin port: reads one status or a stream of them, or sends a command. Every wait has a
//! deadline.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::status::Status;

/// Deadline for one answer, including the connection, and for the next event; pgnorth sends one each second.
const DEADLINE: Duration = Duration::from_secs(5);
/// Deadline for a command. The admin port itself answers after 10 s at the latest.
const COMMAND: Duration = Duration::from_secs(15);
/// Size limit of a status, which has a few tens of KiB.
const LONGEST: usize = 4 * 1024 * 1024;

/// Reasons why no usable answer was received. Each text begins with the address.
#[derive(Debug, Error)]
pub(in crate::app) enum ContactError {
    /// The connection failed.
    #[error("{0}: {1}; is this pgnorth's admin port (--admin or PGNORTH_ADMIN), and is pgnorth running?")]
    Connect(SocketAddr, #[source] io::Error),
    /// No answer arrived in time.
    #[error("{0}: no answer within {1} s; the process may be frozen, or the network drops packets")]
    TimedOut(SocketAddr, u64),
    /// The connection ended or broke.
    #[error("{0}: the connection ended: {1}")]
    Broken(SocketAddr, String),
    /// Another program listens there, or another version of pgnorth.
    #[error("{0}: the answer is not a pgnorth status: {1}")]
    NoStatus(SocketAddr, String),
}

/// A stream of events.
pub(super) struct StatusStream {
    address: SocketAddr,
    body: Incoming,
    unread: Vec<u8>,
    /// Drives the connection, and ends it when dropped.
    _connection: JoinSet<()>,
}

/// Returns the present status.
pub(super) async fn get(address: SocketAddr) -> Result<Status, ContactError> {
    let asked = async {
        let (answer, _connection) = ask(address, "/status").await?;
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| ContactError::Broken(address, error.to_string()))?;
        read(address, &body.to_bytes())
    };
    timeout(DEADLINE, asked)
        .await
        .unwrap_or(Err(ContactError::TimedOut(address, DEADLINE.as_secs())))
}

/// Returns a stream of the status.
pub(super) async fn watch(address: SocketAddr) -> Result<StatusStream, ContactError> {
    let asked = async {
        let (answer, connection) = ask(address, "/status/events").await?;
        Ok(StatusStream {
            address,
            body: answer.into_body(),
            unread: Vec::new(),
            _connection: connection,
        })
    };
    timeout(DEADLINE, asked)
        .await
        .unwrap_or(Err(ContactError::TimedOut(address, DEADLINE.as_secs())))
}

/// Sends a command with the token in this header. Returns true if it was applied, and the answer's text.
pub(in crate::app) async fn post(
    address: SocketAddr,
    path: &str,
    token: HeaderValue,
) -> Result<(bool, String), ContactError> {
    let request = Request::post(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, token);
    let asked = async {
        let (answer, _connection) = send(address, request).await?;
        let done = answer.status() == StatusCode::OK;
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| ContactError::Broken(address, error.to_string()))?;
        Ok((done, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    timeout(COMMAND, asked)
        .await
        .unwrap_or(Err(ContactError::TimedOut(address, COMMAND.as_secs())))
}

impl StatusStream {
    /// Returns the status of the next event.
    pub(super) async fn next(&mut self) -> Result<Status, ContactError> {
        let address = self.address;
        let event = timeout(DEADLINE, self.event()).await;
        read(
            address,
            &event.unwrap_or(Err(ContactError::TimedOut(address, DEADLINE.as_secs())))?,
        )
    }

    /// Returns the data of the next event with data. An event ends with an empty line; pgnorth's events have one line
    /// of data.
    async fn event(&mut self) -> Result<Vec<u8>, ContactError> {
        let broken = |why: &str| ContactError::Broken(self.address, why.to_owned());
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                let data = event
                    .split(|byte| *byte == b'\n')
                    .find_map(|line| line.strip_prefix(b"data: "));
                match data {
                    Some(data) => return Ok(data.to_vec()),
                    None => continue,
                }
            }
            if self.unread.len() > LONGEST {
                return Err(broken("an event is too long"));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(broken(&error.to_string())),
                None => return Err(broken("pgnorth closed the stream")),
            };
            self.unread.extend(frame.into_data().unwrap_or_default());
        }
    }
}

async fn ask(address: SocketAddr, path: &str) -> Result<(Response<Incoming>, JoinSet<()>), ContactError> {
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(ACCEPT, "application/json, text/event-stream");
    let (answer, driver) = send(address, request).await?;
    match answer.status() {
        StatusCode::OK => Ok((answer, driver)),
        status => Err(ContactError::NoStatus(address, format!("{path} returned {status}"))),
    }
}

async fn send(address: SocketAddr, request: Builder) -> Result<(Response<Incoming>, JoinSet<()>), ContactError> {
    let stream = TcpStream::connect(&reachable(address)[..]).await;
    let stream = stream.map_err(|error| ContactError::Connect(address, error))?;
    let broken = |error: hyper::Error| ContactError::Broken(address, error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut driver = JoinSet::new();
    // The request reports the same error.
    driver.spawn(async { drop(connection.await) });
    let request = request
        .body(Empty::<Bytes>::new())
        .expect("a path, an address and a token are valid in a request");
    Ok((sender.send_request(request).await.map_err(broken)?, driver))
}

/// Returns the addresses to connect to: for an unspecified one, this host's loopback.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let hosts = match address.ip() {
        ip if !ip.is_unspecified() => vec![ip],
        IpAddr::V4(_) => vec![v4],
        IpAddr::V6(_) => vec![v6, v4],
    };
    hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, address.port()))
        .collect()
}

fn read(address: SocketAddr, body: &[u8]) -> Result<Status, ContactError> {
    serde_json::from_slice(body).map_err(|error| ContactError::NoStatus(address, error.to_string()))
}
