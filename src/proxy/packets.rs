//! Parses the first packets of PostgreSQL's protocol, and its error messages. Pure.

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
const MAX_PACKET: usize = 10_000;
/// Maximum length of an ErrorResponse that is read; longer ones are forwarded unread.
pub(super) const MAX_ERROR: usize = 8192;
/// The answer that declines a request for encryption.
pub(super) const NO: u8 = b'N';
/// The answer that accepts a request for TLS.
pub(super) const YES: u8 = b'S';

// Request codes and versions (PostgreSQL's pqcomm.h): the major number is in the upper half.
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
pub(crate) const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;

/// The packets that a client may send before a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A start-up packet.
    Session,
    /// SSLRequest or GSSENCRequest, after which the start-up packet follows.
    Encryption,
    /// CancelRequest. Its sender reads no answer.
    Cancel,
}

/// The meaning of the bytes received from a client so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a packet.
    Incomplete,
    /// A packet of this length, perhaps with more bytes after it.
    Complete(Packet, usize),
    /// Bytes that are not a packet of PostgreSQL's protocol.
    NotPostgres,
}

/// Parses the first bytes from a client.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    // The length of every valid packet begins with two zero bytes, so there is no need to wait for the rest.
    if bytes.iter().take(2).any(|byte| *byte != 0) {
        return Parsed::NotPostgres;
    }
    let Some(length) = number(0) else {
        return Parsed::Incomplete;
    };
    let length = length as usize;
    if !(8..=MAX_PACKET).contains(&length) {
        return Parsed::NotPostgres;
    }
    let packet = match number(4) {
        None => return Parsed::Incomplete,
        Some(CANCEL_REQUEST) => Packet::Cancel,
        Some(SSL_REQUEST | GSSENC_REQUEST) if length == 8 => Packet::Encryption,
        // Protocol 3, any minor version; PostgreSQL has not supported version 2 since release 14.
        Some(version) if version >> 16 == 3 => Packet::Session,
        Some(_) => return Parsed::NotPostgres,
    };
    if bytes.len() < length {
        return Parsed::Incomplete;
    }
    Parsed::Complete(packet, length)
}

/// Returns the fields of an ErrorResponse, or `Some(None)` while they are incomplete; `None` if `answer` is another
/// message, or longer than [`MAX_ERROR`] (PostgreSQL's manual, "Message Formats").
pub(super) fn error_message(answer: &[u8]) -> Option<Option<&[u8]>> {
    if answer.first() != Some(&b'E') {
        return None;
    }
    let Some(length) = answer.get(1..5) else {
        return Some(None);
    };
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    if !(4..=MAX_ERROR).contains(&length) {
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
    fn first_packets_are_distinguished() {
        for (bytes, what) in [
            (packet(3 << 16, 40), Parsed::Complete(Packet::Session, 40)),
            (packet(3 << 16 | 2, 9), Parsed::Complete(Packet::Session, 9)),
            (packet(SSL_REQUEST, 8), Parsed::Complete(Packet::Encryption, 8)),
            (packet(GSSENC_REQUEST, 8), Parsed::Complete(Packet::Encryption, 8)),
            (packet(CANCEL_REQUEST, 16), Parsed::Complete(Packet::Cancel, 16)),
            // The longest key of protocol 3.2: 256 bytes.
            (packet(CANCEL_REQUEST, 268), Parsed::Complete(Packet::Cancel, 268)),
            (packet(CANCEL_REQUEST, 268)[..16].to_vec(), Parsed::Incomplete),
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
