//! Refusals: sends the client a PostgreSQL error with the reason, instead of a reset.
//!
//! Reads the packets before a session, and answers the start-up packet with the error. A client that requests TLS, or
//! begins with it, gets TLS, because its driver shows an error only inside TLS. libpq shows no text from before TLS
//! (CVE-2024-10977). If TLS were declined, sslmode=require would report "server does not support SSL", and
//! sslmode=prefer would send user and database in cleartext. docs/reference/drivers.md has a table of the drivers.

mod certificate;
mod tls;

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::forward::Socket;
use super::packets::{NO, Packet, Parsed, SSL_REQUEST, YES, parse};
use tls::Encrypted;
pub use tls::RefusalTls;

/// Maximum duration of a refusal, from the first byte to the close. With TLS it takes three round trips.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of packets that are read: a client may request GSSAPI, then TLS, and then begin its session.
const MAX_PACKETS: usize = 3;
/// Maximum number of bytes that are read and discarded before the client closes.
const MAX_DISCARDED: usize = 64 * 1024;
/// First byte of a TLS handshake: PostgreSQL 17's sslnegotiation=direct begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// The SQLSTATE of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlState {
    /// cannot_connect_now, after which drivers with several hosts try the next, and pools retry.
    CannotConnectNow,
    /// too_many_connections.
    TooManyConnections,
    /// protocol_violation, which PostgreSQL sends for an invalid start-up packet (src/backend/tcop/backend_startup.c).
    ProtocolViolation,
}

impl SqlState {
    const fn code(self) -> &'static str {
        match self {
            Self::CannotConnectNow => "57P03",
            Self::TooManyConnections => "53300",
            Self::ProtocolViolation => "08P01",
        }
    }
}

/// The connection of a client that is refused, in plaintext or inside TLS.
enum Channel<'a> {
    Plain(&'a Socket),
    Encrypted(Encrypted<'a>),
}

/// A request of a client that is refused.
enum Request {
    /// A session, which is answered with the error.
    Session,
    /// TLS after an SSLRequest.
    Tls,
    /// TLS without an SSLRequest.
    DirectTls,
    /// GSSAPI encryption.
    Gssapi,
}

/// Sends the reason to the client, if it uses PostgreSQL's protocol, and closes the connection. `received` holds the
/// bytes read from the client so far. Takes at most [`TIMEOUT`].
pub(super) async fn refuse(client: Socket, received: Vec<u8>, tls: &RefusalTls, state: SqlState, text: &str) {
    // The connection is closed in either case.
    let _in_time = timeout(TIMEOUT, send_refusal(&client, received, tls, state, text)).await;
}

/// Sends the reason to a client that has sent no complete packet. The caller closes the connection next, without
/// waiting for the client to close it.
pub(super) async fn send_error(client: &Socket, state: SqlState, text: &str) {
    let _in_time = timeout(TIMEOUT, client.send(&error_response(state, text))).await;
}

async fn send_refusal(
    client: &Socket,
    mut received: Vec<u8>,
    tls: &RefusalTls,
    state: SqlState,
    text: &str,
) -> io::Result<()> {
    let mut channel = Channel::Plain(client);
    for _ in 0..MAX_PACKETS {
        match (next_request(&mut channel, &mut received).await?, &channel) {
            (Some(Request::Session), _) => {
                channel.send_last(&error_response(state, text)).await?;
                return wait_for_close(client).await;
            }
            (Some(Request::Gssapi), Channel::Plain(_)) => client.send(&[NO]).await?,
            (Some(Request::Tls), Channel::Plain(_)) => {
                client.send(&[YES]).await?;
                channel = Channel::Encrypted(tls.accept(client, &std::mem::take(&mut received)).await?);
            }
            (Some(Request::DirectTls), Channel::Plain(_)) => {
                channel = Channel::Encrypted(tls.accept(client, &std::mem::take(&mut received)).await?);
            }
            // Not PostgreSQL's protocol, or TLS inside TLS.
            _ => break,
        }
    }
    Ok(())
}

impl Channel<'_> {
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(client) => client.receive().await,
            Self::Encrypted(client) => client.receive().await,
        }
    }

    async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(client) => client.send(bytes).await,
            Self::Encrypted(client) => client.send_last(bytes).await,
        }
    }
}

async fn wait_for_close(client: &Socket) -> io::Result<()> {
    client.shut_write();
    // Closing with unread bytes would send a reset, which can overtake the error: the client closes first.
    let mut rest = 0;
    while rest < MAX_DISCARDED {
        match client.receive().await?.len() {
            0 => break,
            read => rest += read,
        }
    }
    Ok(())
}

/// Removes one packet from the front of `bytes`, and reads more until it is complete. Returns `None` if there is no
/// packet to answer. Removes nothing for direct TLS.
async fn next_request(client: &mut Channel<'_>, bytes: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Ok(Some(Request::DirectTls));
        }
        match parse(bytes) {
            Parsed::Complete(packet, length) => {
                let first: Vec<u8> = bytes.drain(..length).collect();
                return Ok(match packet {
                    Packet::Session => Some(Request::Session),
                    Packet::Encryption if first.ends_with(&SSL_REQUEST.to_be_bytes()) => Some(Request::Tls),
                    Packet::Encryption => Some(Request::Gssapi),
                    Packet::Cancel => None,
                });
            }
            Parsed::NotPostgres => return Ok(None),
            Parsed::Incomplete => {
                let more = client.receive().await?;
                if more.is_empty() {
                    return Ok(None);
                }
                bytes.extend(more);
            }
        }
    }
}

/// Builds an ErrorResponse of protocol 3 (PostgreSQL's manual, "Message Formats" and "Error and Notice Message
/// Fields").
fn error_response(state: SqlState, text: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', state.code()), (b'M', text)] {
        fields.push(field);
        // A zero would end the field.
        fields.extend(value.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![b'E'];
    message.extend(length.to_be_bytes());
    message.extend(fields);
    message
}
