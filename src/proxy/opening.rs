//! The opening of a session: passes the client's first packet to the leader, and the leader's first answer to the
//! client.
//!
//! A leader that answers the start-up with 57P03 (starting up, shutting down, in recovery), or disconnects before it
//! answers, has done nothing for this client. The client waits again, and its first packet is sent again. The same
//! happens if the leader has no free connection (53300) and the client had to wait, or can try another member.
//!
//! In a session, only this module and its parsers read what the client and the server send, and only up to the first
//! answer. They cannot read inside TLS; for TLS clients, Patroni's state must show in time that the leader is starting
//! or stopping. The login of a client that was held is followed to its end, but only to find the time at which it ends.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::forward::{Socket, Transferred};
use super::header::{self, Header};
use super::hold::DialPermit;
use super::login::Login;
use super::packets::{MAX_ERROR, NO, Packet, Parsed, YES, error_message, parse};

/// Time after which a client that does not send the rest of its packet loses its dial permit to the next client.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(250);
/// Time that a client has for each step of a login. TLS and SCRAM cost CPU time on the client's machine, which may run
/// many clients.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time after which a client loses its dial permit if the leader does not answer: it hangs, or authentication is slow.
/// This is long enough to keep all clients from connecting to a busy leader at the same time. It also bounds the rest
/// of a login as a whole.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLSTATE cannot_connect_now.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";
/// SQLSTATE too_many_connections.
const TOO_MANY_CONNECTIONS: &[u8] = b"53300";
/// SQLSTATE protocol_violation, which PgBouncer sends with all errors that it raises itself.
const POOLER_ERROR: &[u8] = b"08P01";
/// The beginnings of PgBouncer's errors after which a later attempt may succeed (PgBouncer 1.18 to 1.25, client.c and
/// objects.c). PostgreSQL has none of them.
const POOLER_NOT_YET: [&str; 4] = [
    "no more connections allowed",
    "server login has been failing",
    "pgbouncer is shutting down",
    "pooler is shutting down",
];

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A session, or bytes that only the leader can interpret.
    Session,
    /// The cancellation of another session's query.
    Cancel,
}

/// Reasons why the leader did not accept the client. The client has received nothing that binds it to this leader.
#[derive(Debug, Error)]
pub(super) enum OpeningError {
    /// The leader answered 57P03.
    #[error("it answered: {0}")]
    CannotConnectNow(String),
    /// The leader has no free connection (53300), or its pooler is not ready.
    #[error("it accepts no more clients for now: {0}")]
    TooManyConnections(String),
    /// The leader closed or reset the connection before it answered, or the connection timed out.
    #[error("the connection was lost before it answered: {0}")]
    Disconnected(#[source] io::Error),
}

/// The PROXY protocol header of a client that has to send one.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum ProxyHeader {
    Awaited,
    Read(Option<SocketAddr>),
    Malformed,
}

/// The state of an opening. It is kept across attempts until a leader accepts the client.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// `None` if the client need not send a header.
    header: Option<ProxyHeader>,
    received: Vec<u8>,
    answered: bool,
    transferred: Transferred,
    /// The rest of the login, if the leader's first answer did not end it.
    login: Option<Login>,
    /// True if the client had to wait, so that it may be one of many that are released together.
    pub(super) waited: bool,
    /// True if the client retries when the leader has no free connection; otherwise the client gets the error.
    pub(super) insists: bool,
}

/// An opening as it is handed over to another process, without the received bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PassedOpening {
    header: Option<ProxyHeader>,
    transferred: Transferred,
    waited: bool,
}

impl Opening {
    /// Returns an opening that begins with a PROXY protocol header.
    pub(super) fn behind_load_balancer() -> Self {
        Self {
            header: Some(ProxyHeader::Awaited),
            ..Self::default()
        }
    }

    /// Returns the client's address from the load balancer's header.
    pub(super) fn client_address(&self) -> Option<SocketAddr> {
        match self.header {
            Some(ProxyHeader::Read(client)) => client,
            _ => None,
        }
    }

    /// Returns true if the client had to send a header and sent something else.
    pub(super) fn lacks_header(&self) -> bool {
        matches!(self.header, Some(ProxyHeader::Malformed))
    }

    /// Returns true if the client has received nothing that binds it to one leader.
    pub(super) fn can_start_over(&self) -> bool {
        !self.answered
    }

    /// Reads the client's first packet, and before it the PROXY protocol header if the client has to send one. Returns
    /// `None` if the client closes before the packet is complete, or [lacks the header](Self::lacks_header).
    /// Cancel-safe: received bytes are kept.
    pub(super) async fn first(&mut self, client: &Socket) -> Option<Purpose> {
        while matches!(self.header, Some(ProxyHeader::Awaited)) {
            match header::parse(&self.received) {
                Header::Complete(length, address) => {
                    self.received.drain(..length);
                    self.header = Some(ProxyHeader::Read(address));
                }
                Header::Malformed => {
                    self.header = Some(ProxyHeader::Malformed);
                    return None;
                }
                Header::Incomplete => self.receive(client).await?,
            }
        }
        loop {
            match parse(&self.received) {
                Parsed::Complete(Packet::Cancel, length) => {
                    self.received.truncate(length);
                    return Some(Purpose::Cancel);
                }
                Parsed::Complete(..) | Parsed::NotPostgres => return Some(Purpose::Session),
                Parsed::Incomplete => self.receive(client).await?,
            }
        }
    }

    /// Reads more bytes; `None` if the client has closed or is lost. Cancel-safe.
    async fn receive(&mut self, client: &Socket) -> Option<()> {
        let bytes = client.receive().await.ok().filter(|bytes| !bytes.is_empty())?;
        self.received.extend(bytes);
        Some(())
    }

    /// Returns the bytes received from the client and not yet accepted by a leader.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Consumes the opening, and returns its [`received`](Self::received) bytes.
    pub(super) fn into_received(self) -> Vec<u8> {
        self.received
    }

    /// Returns a description for another process. Must be called only while `can_start_over` is true.
    pub(super) fn passed(&self) -> PassedOpening {
        PassedOpening {
            header: self.header.clone(),
            transferred: self.transferred,
            waited: self.waited,
        }
    }

    /// Returns the numbers of bytes delivered to leaders and to the client. Bytes that will be sent again do not count.
    pub(super) fn transferred(&self) -> Transferred {
        self.transferred
    }

    /// Forwards the opening between both sides until the leader has answered, or until there is nothing to interpret;
    /// the relay forwards the rest.
    ///
    /// Cancel-safe while [`can_start_over`](Self::can_start_over) is true: received bytes are kept. After a
    /// cancellation, the caller must drop the leader's connection. Gives `permit` to the next client if this client or
    /// the leader takes too long.
    pub(super) async fn exchange(
        &mut self,
        client: &Socket,
        leader: &Socket,
        permit: &mut Option<DialPermit>,
    ) -> Result<(), OpeningError> {
        loop {
            let packet = self.read_packet(client, leader, permit).await?;
            leader.send(&self.received).await.map_err(OpeningError::Disconnected)?;
            let answer = match packet {
                Some(Packet::Encryption | Packet::Session) => ask(client, leader, permit, self.insists).await?,
                Some(Packet::Cancel) | None => Vec::new(),
            };
            self.transferred.to_leader += self.received.len() as u64;
            let sent = std::mem::take(&mut self.received);
            if packet == Some(Packet::Encryption) && answer == [NO] {
                // Encryption was declined: the client begins again in plaintext, and any leader may answer it.
                self.pass_on(&answer, client).await;
                continue;
            }
            self.answered = true;
            self.pass_on(&answer, client).await;
            self.login = match packet {
                Some(Packet::Encryption) => (answer == [YES]).then(Login::encrypted),
                Some(Packet::Session) => Login::challenged(&answer),
                Some(Packet::Cancel) => None,
                None => Login::direct(&sent),
            };
            return Ok(());
        }
    }

    /// Forwards the rest of a login while the client keeps its permit: when the leader first answers, it has only
    /// forked, and the costly part of the login is yet to come. Returns after the leader's greeting, when a side closes
    /// or takes too long, or when `enough` completes; the relay forwards the rest. Returns immediately if the client
    /// did not have to wait, or if there is no login to follow. Not cancel-safe: bytes may have been forwarded.
    pub(super) async fn log_in(&mut self, client: &Socket, leader: &Socket, enough: impl Future<Output = ()>) {
        let Some(mut login) = self.login.take().filter(|_| self.waited) else {
            return;
        };
        let latest = Instant::now() + LEADER_TIMEOUT;
        let mut enough = pin!(enough);
        loop {
            let timeout = match login.asked {
                true => latest,
                false => latest.min(Instant::now() + LOGIN_TIMEOUT),
            };
            tokio::select! {
                biased;
                said = leader.receive() => match said {
                    Ok(said) if !said.is_empty() => {
                        self.pass_on(&said, client).await;
                        if login.on_leader(&said) {
                            return;
                        }
                    }
                    _ => return,
                },
                said = client.receive() => match said {
                    Ok(said) if !said.is_empty() => {
                        login.on_client(&said);
                        if leader.send(&said).await.is_err() {
                            return;
                        }
                        self.transferred.to_leader += said.len() as u64;
                    }
                    _ => return,
                },
                () = sleep_until(timeout) => return,
                () = &mut enough => return,
            }
        }
    }

    /// Reads from the client until its packet is complete. Returns `None` if the received bytes are to be forwarded as
    /// they are: they are not a packet, more bytes follow the packet, the client is gone, or the leader answered first
    /// (the client gets this answer).
    async fn read_packet(
        &mut self,
        client: &Socket,
        leader: &Socket,
        permit: &mut Option<DialPermit>,
    ) -> Result<Option<Packet>, OpeningError> {
        let mut timeout = pin!(sleep(CLIENT_TIMEOUT));
        loop {
            match parse(&self.received) {
                // The bytes after the packet may already be a query, which must not be sent twice.
                Parsed::Complete(_, length) if self.received.len() > length => return Ok(None),
                Parsed::Complete(packet, _) => return Ok(Some(packet)),
                Parsed::NotPostgres => return Ok(None),
                Parsed::Incomplete => {}
            }
            tokio::select! {
                biased;
                read = client.receive() => match read {
                    Ok(bytes) if !bytes.is_empty() => self.received.extend(bytes),
                    // The client left or was lost, which the relay will notice, too.
                    _ => return Ok(None),
                },
                // The leader sent its answer first, or is gone.
                first = leader.receive() => {
                    let first = first.map_err(OpeningError::Disconnected)?;
                    let answer = match first.is_empty() {
                        // The leader gave up waiting for the client (authentication_timeout).
                        true => first,
                        false => complete(first, leader, false).await?,
                    };
                    self.answered = true;
                    self.pass_on(&answer, client).await;
                    return Ok(None);
                }
                () = &mut timeout, if permit.is_some() => *permit = None,
            }
        }
    }

    /// Sends `answer` to the client. If the client is gone, the relay will notice.
    async fn pass_on(&mut self, answer: &[u8], client: &Socket) {
        if client.send(answer).await.is_ok() {
            self.transferred.to_client += answer.len() as u64;
        }
    }
}

impl PassedOpening {
    /// Returns the opening of a client that has sent `received`.
    pub(super) fn resume(self, received: Vec<u8>) -> Opening {
        Opening {
            header: self.header,
            received,
            transferred: self.transferred,
            waited: self.waited,
            ..Opening::default()
        }
    }
}

/// Waits for the leader's first answer and returns it. The returned bytes are empty if the client closes or loses its
/// connection first; the relay then forwards what is left.
async fn ask(
    client: &Socket,
    leader: &Socket,
    permit: &mut Option<DialPermit>,
    insists: bool,
) -> Result<Vec<u8>, OpeningError> {
    let mut answer = pin!(answer(leader, insists));
    let mut timeout = pin!(sleep(LEADER_TIMEOUT));
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = client.closed() => return Ok(Vec::new()),
            () = &mut timeout, if permit.is_some() => *permit = None,
        }
    }
}

/// Reads the leader's first answer. Returns an error if the leader did not accept the client.
async fn answer(leader: &Socket, insists: bool) -> Result<Vec<u8>, OpeningError> {
    let first = leader.receive().await.map_err(OpeningError::Disconnected)?;
    if first.is_empty() {
        return Err(OpeningError::Disconnected(ErrorKind::UnexpectedEof.into()));
    }
    complete(first, leader, insists).await
}

/// Completes an answer whose first bytes are given: reads the rest if it is an error message. Returns an error if the
/// leader did not accept the client.
async fn complete(mut answer: Vec<u8>, leader: &Socket, insists: bool) -> Result<Vec<u8>, OpeningError> {
    loop {
        match error_message(&answer) {
            None => return Ok(answer),
            Some(None) if answer.len() < MAX_ERROR => {
                match leader.receive().await.map_err(OpeningError::Disconnected)? {
                    more if more.is_empty() => return Ok(answer),
                    more => answer.extend(more),
                }
            }
            Some(None) => return Ok(answer),
            Some(Some(message)) => {
                let field = |kind: u8| {
                    let mut fields = message.split(|byte| *byte == 0);
                    fields.find_map(|field| field.strip_prefix(&[kind]))
                };
                let text = || String::from_utf8_lossy(field(b'M').unwrap_or_default()).into_owned();
                return match field(b'C') {
                    Some(CANNOT_CONNECT_NOW) => Err(OpeningError::CannotConnectNow(text())),
                    Some(TOO_MANY_CONNECTIONS) if insists => Err(OpeningError::TooManyConnections(text())),
                    Some(POOLER_ERROR) if insists && is_not_yet(&text()) => {
                        Err(OpeningError::TooManyConnections(text()))
                    }
                    _ => Ok(answer),
                };
            }
        }
    }
}

/// Returns true for an error of a pooler after which a later attempt may succeed.
fn is_not_yet(error: &str) -> bool {
    POOLER_NOT_YET.iter().any(|beginning| error.starts_with(beginning))
}
