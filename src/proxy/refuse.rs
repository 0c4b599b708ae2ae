//! The polite refusal: a PostgreSQL error with the reason in words, instead of a reset.
//!
//! It reads what comes before a session: requests for encryption, which are declined, and the startup packet, which is answered by the error. An error
//! in answer to the request itself would be allowed too, but since November 2024 libpq (CVE-2024-10977) shows no text from before authentication of
//! the server: psql then says "server sent an error response during SSL exchange", and nobody learns why. Declined, the default sslmode=prefer goes on
//! in plaintext and shows the reason. The price: sslmode=require says "server does not support SSL"; there is no way to tell it more.

use std::time::Duration;

use tokio::time::timeout;

use super::forward::Socket;
use super::opening::{Heard, NO, Packet, heard};

/// All that a refusal may take, from the first byte to the close.
const PATIENCE: Duration = Duration::from_secs(1);
/// A client may ask for GSSAPI, then for TLS, and then begins its session.
const MOST_PACKETS: usize = 3;
/// How much is read and thrown away while the client takes its error.
const LEFTOVERS: usize = 64 * 1024;

/// What PostgreSQL calls the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlState {
    /// cannot_connect_now: drivers with several hosts go on to the next, and pools try again.
    CannotConnectNow,
    /// too_many_connections.
    TooManyConnections,
}

impl SqlState {
    const fn code(self) -> &'static str {
        match self {
            Self::CannotConnectNow => "57P03",
            Self::TooManyConnections => "53300",
        }
    }
}

/// Tells the client why, if it speaks PostgreSQL, and closes; `heard` is what was read from it before. Takes at most [`PATIENCE`].
pub(super) async fn refuse(client: Socket, heard: Vec<u8>, state: SqlState, text: &str) {
    // Whether it got through in time or not, the connection is closed.
    let _in_time = timeout(PATIENCE, tell(&client, heard, state, text)).await;
}

async fn tell(client: &Socket, mut heard: Vec<u8>, state: SqlState, text: &str) -> std::io::Result<()> {
    for _ in 0..MOST_PACKETS {
        match next_packet(client, &mut heard).await? {
            Some(Packet::Encryption) => client.send(&[NO]).await?,
            Some(Packet::Session) => return end_with(client, &error_response(state, text)).await,
            Some(Packet::Cancel) | None => break,
        }
    }
    Ok(())
}

async fn end_with(client: &Socket, error: &[u8]) -> std::io::Result<()> {
    client.send(error).await?;
    client.shut_write();
    // Closing with bytes unread would send a reset, which can overtake the error: the client closes first.
    let mut rest = 0;
    while rest < LEFTOVERS {
        match client.receive().await?.len() {
            0 => break,
            read => rest += read,
        }
    }
    Ok(())
}

/// Takes one packet off what was heard, and reads on until it is whole; `None` when it is none of PostgreSQL's.
async fn next_packet(client: &Socket, bytes: &mut Vec<u8>) -> std::io::Result<Option<Packet>> {
    loop {
        match heard(bytes) {
            Heard::Whole(packet, length) => {
                bytes.drain(..length);
                return Ok(Some(packet));
            }
            Heard::Foreign => return Ok(None),
            Heard::Part => {
                let more = client.receive().await?;
                if more.is_empty() {
                    return Ok(None);
                }
                bytes.extend(more);
            }
        }
    }
}

/// ErrorResponse of protocol 3 (PostgreSQL's manual, "Message Formats" and "Error and Notice Message Fields").
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
