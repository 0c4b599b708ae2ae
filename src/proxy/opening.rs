//! A session's opening: the client's first packet goes to the leader, and the leader's first answer to the client, unless it is "not yet".
//!
//! A leader that answers the start-up with 57P03 (starting up, shutting down, in recovery), or breaks before it has answered at all, has done nothing for
//! this client: the client goes back to waiting, and its first packet is sent again. One of a crowd that was held waits in the same way where the leader has no
//! connection free (53300). This is the only place that looks into what a client and a server say, and it stops with the first answer. Inside TLS nothing can be
//! seen: there the look-ahead on Patroni's state has to suffice. A client that was held is followed until its login is over, but only to know when.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::forward::{Socket, Transferred};
use super::hold::DialPermit;
use super::login::Login;

/// PostgreSQL's own MAX_STARTUP_PACKET_LENGTH.
const LONGEST: usize = 10_000;
/// An ErrorResponse that is longer is passed on unread.
const LONGEST_ERROR: usize = 8192;
/// A client that has begun and does not go on: after this it no longer keeps others from dialling.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(250);
/// The same in a login, where TLS and SCRAM cost a client's machine something, too: one that has many clients needs a moment for each.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(1);
/// A leader that is asked and does not answer: it is hung, or authentication is slow. Long enough that a busy leader is not asked by everybody at once. It bounds the
/// rest of a login as a whole, too.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A request for encryption, declined.
pub(super) const NO: u8 = b'N';
/// A request for TLS, accepted.
const YES: u8 = b'S';
/// cannot_connect_now.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";
/// too_many_connections.
const TOO_MANY_CONNECTIONS: &[u8] = b"53300";

// Request codes and versions (PostgreSQL's pqcomm.h): the major number stands in the upper half.
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
pub(crate) const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;

/// What a client may send before a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A session, encrypted or not.
    Session,
    /// SSLRequest or GSSENCRequest: encryption first.
    Encryption,
    /// CancelRequest: it never reads an answer.
    Cancel,
}

/// What bytes from a client amount to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A packet of this length may still become whole.
    Incomplete,
    /// A whole packet, of this length.
    Complete(Packet, usize),
    /// None of PostgreSQL's.
    NotPostgres,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A session, or something that only the leader can make sense of.
    Session,
    /// To cancel another session's query.
    Cancel,
}

/// The leader did not take the client, which knows nothing of it.
#[derive(Debug, Error)]
pub(super) enum OpeningError {
    /// It said so itself.
    #[error("it answered: {0}")]
    CannotConnectNow(String),
    /// It has no connection free.
    #[error("it has no connection free: {0}")]
    TooManyConnections(String),
    /// It closed or reset the connection before it answered.
    #[error("it broke the connection before it answered: {0}")]
    Disconnected(#[source] io::Error),
}

/// How far an opening has come. It survives a leader that says "not yet".
#[derive(Debug, Default)]
pub(super) struct Opening {
    received: Vec<u8>,
    answered: bool,
    transferred: Transferred,
    /// What is left of the login, where the leader's first answer does not end it.
    login: Option<Login>,
    /// The client had to wait, so it is one of many that are let go together.
    pub(super) waited: bool,
    /// A leader without a free connection is asked again, instead of passing its error on.
    pub(super) insists: bool,
}

/// What the first bytes from a client are.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    // The longest packet's length has two zero bytes in front: what begins otherwise need not be waited for.
    if bytes.iter().take(2).any(|byte| *byte != 0) {
        return Parsed::NotPostgres;
    }
    let Some(length) = number(0) else {
        return Parsed::Incomplete;
    };
    let length = length as usize;
    if !(8..=LONGEST).contains(&length) {
        return Parsed::NotPostgres;
    }
    let packet = match number(4) {
        None => return Parsed::Incomplete,
        Some(CANCEL_REQUEST) => Packet::Cancel,
        Some(SSL_REQUEST | GSSENC_REQUEST) if length == 8 => Packet::Encryption,
        // Protocol 3, any minor; 2 has not been spoken since PostgreSQL 14.
        Some(version) if version >> 16 == 3 => Packet::Session,
        Some(_) => return Parsed::NotPostgres,
    };
    if bytes.len() < length {
        return Parsed::Incomplete;
    }
    Parsed::Complete(packet, length)
}

impl Opening {
    /// Whether the client has got nothing that binds it to one leader.
    pub(super) fn can_start_over(&self) -> bool {
        !self.answered
    }

    /// Reads the client's first packet; `None` if the client closes before it is whole. Cancel-safe: what was read is kept.
    pub(super) async fn first(&mut self, client: &Socket) -> Option<Purpose> {
        loop {
            match parse(&self.received) {
                Parsed::Complete(Packet::Cancel, length) => {
                    self.received.truncate(length);
                    return Some(Purpose::Cancel);
                }
                Parsed::Complete(..) | Parsed::NotPostgres => return Some(Purpose::Session),
                Parsed::Incomplete => {}
            }
            match client.receive().await {
                Ok(bytes) if !bytes.is_empty() => self.received.extend(bytes),
                _ => return None,
            }
        }
    }

    /// What was read from the client and not yet taken by a leader.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// The same, to be kept.
    pub(super) fn into_received(self) -> Vec<u8> {
        self.received
    }

    /// Bytes delivered to the leader that took the client, and to the client.
    pub(super) fn transferred(&self) -> Transferred {
        self.transferred
    }

    /// Passes the opening between both until the leader has answered, or until it is clear that there is nothing to look at; all the rest is for the relay.
    ///
    /// Cancel-safe as long as [`can_start_over`](Self::can_start_over): what was read from the client is kept, and the leader's connection is to be dropped.
    /// `permit` is dropped, for the next client, when this one or the leader takes too long.
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
                // Declined: the client begins anew in plaintext, with any leader.
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

    /// Passes the rest of a login on, with the client's permit still taken: behind the first answer the leader has forked, and the costly part is yet to come. It ends with the
    /// leader's greeting, or when a side stops or takes too long: then it is for the relay, as all the rest. Where the client did not have to wait, there is no crowd,
    /// and nothing to do. Not cancel-safe: nobody knows what was passed on.
    pub(super) async fn log_in(&mut self, client: &Socket, leader: &Socket) {
        let Some(mut login) = self.login.take().filter(|_| self.waited) else {
            return;
        };
        let latest = Instant::now() + LEADER_TIMEOUT;
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
            }
        }
    }

    /// Reads from the client until its packet is whole. `None` where there is none: what was read is to be passed on as it is.
    async fn read_packet(
        &mut self,
        client: &Socket,
        leader: &Socket,
        permit: &mut Option<DialPermit>,
    ) -> Result<Option<Packet>, OpeningError> {
        let mut timeout = pin!(sleep(CLIENT_TIMEOUT));
        loop {
            match parse(&self.received) {
                // What follows the packet may already be work: it must not be sent twice.
                Parsed::Complete(_, length) if self.received.len() > length => return Ok(None),
                Parsed::Complete(packet, _) => return Ok(Some(packet)),
                Parsed::NotPostgres => return Ok(None),
                Parsed::Incomplete => {}
            }
            tokio::select! {
                biased;
                read = client.receive() => match read {
                    Ok(bytes) if !bytes.is_empty() => self.received.extend(bytes),
                    // It left, or was lost: the relay will see it, too.
                    _ => return Ok(None),
                },
                // A leader that speaks first has something to say, or is gone.
                first = leader.receive() => {
                    let first = first.map_err(OpeningError::Disconnected)?;
                    let answer = match first.is_empty() {
                        // It got tired of a client that says nothing (authentication_timeout): an end like any other.
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

    /// To the client; one that is gone is the relay's business.
    async fn pass_on(&mut self, answer: &[u8], client: &Socket) {
        if client.send(answer).await.is_ok() {
            self.transferred.to_client += answer.len() as u64;
        }
    }
}

/// Waits for the leader's first answer; empty if the client leaves first: whatever it leaves behind, the relay passes on.
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

/// The leader's first answer, or that there is none yet.
async fn answer(leader: &Socket, insists: bool) -> Result<Vec<u8>, OpeningError> {
    let first = leader.receive().await.map_err(OpeningError::Disconnected)?;
    if first.is_empty() {
        return Err(OpeningError::Disconnected(ErrorKind::UnexpectedEof.into()));
    }
    complete(first, leader, insists).await
}

/// The answer that begins like this: an error is read to its end.
async fn complete(mut answer: Vec<u8>, leader: &Socket, insists: bool) -> Result<Vec<u8>, OpeningError> {
    loop {
        match error_message(&answer) {
            None => return Ok(answer),
            Some(None) if answer.len() < LONGEST_ERROR => {
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
                    _ => Ok(answer),
                };
            }
        }
    }
}

/// The fields of an ErrorResponse, once they are all there; `None` where it is none (PostgreSQL's manual, "Message Formats").
fn error_message(answer: &[u8]) -> Option<Option<&[u8]>> {
    if answer.first() != Some(&b'E') {
        return None;
    }
    let Some(length) = answer.get(1..5) else {
        return Some(None);
    };
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    if !(4..=LONGEST_ERROR).contains(&length) {
        return None;
    }
    Some(answer.get(5..=length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, length: u32) -> Vec<u8> {
        let mut bytes = [length.to_be_bytes(), code.to_be_bytes()].concat();
        bytes.resize(length as usize, b'x');
        bytes
    }

    #[test]
    fn first_packets_are_told_apart() {
        for (bytes, what) in [
            (packet(3 << 16, 40), Parsed::Complete(Packet::Session, 40)),
            (packet(3 << 16 | 2, 9), Parsed::Complete(Packet::Session, 9)),
            (packet(SSL_REQUEST, 8), Parsed::Complete(Packet::Encryption, 8)),
            (packet(GSSENC_REQUEST, 8), Parsed::Complete(Packet::Encryption, 8)),
            (packet(CANCEL_REQUEST, 16), Parsed::Complete(Packet::Cancel, 16)),
            (packet(3 << 16, 40)[..39].to_vec(), Parsed::Incomplete),
            (packet(3 << 16, 40)[..5].to_vec(), Parsed::Incomplete),
            (Vec::new(), Parsed::Incomplete),
            (packet(SSL_REQUEST, 9), Parsed::NotPostgres),
            (packet(2 << 16, 40), Parsed::NotPostgres),
            (b"GET / HTTP/1.1\r\n".to_vec(), Parsed::NotPostgres),
            (b"?".to_vec(), Parsed::NotPostgres),
        ] {
            assert_eq!(parse(&bytes), what, "{bytes:?}");
        }
    }

    #[test]
    fn an_error_is_read_only_when_it_is_whole() {
        let whole = b"E\0\0\0\x0fC57P03\0Mx\0\0";
        assert_eq!(whole.len(), 16);
        assert_eq!(error_message(whole), Some(Some(&whole[5..])));
        for end in 1..whole.len() {
            assert_eq!(error_message(&whole[..end]), Some(None), "{end}");
        }
        assert_eq!(error_message(b"R\0\0\0\x08\0\0\0\0"), None);
        assert_eq!(error_message(b"Ecould not fork new process"), None);
        assert_eq!(error_message(b""), None);
    }
}
