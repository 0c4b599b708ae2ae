//! Parses the header of the PROXY protocol, versions 1 and 2, by which a load balancer passes on its client's address.
//! Pure. Source: HAProxy's doc/proxy-protocol.txt.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The beginning of version 1.
const TEXT: &[u8] = b"PROXY ";
/// Maximum length of a header of version 1, with its CRLF.
const LONGEST_TEXT: usize = 107;
/// The beginning of version 2.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of version 2 before its addresses: beginning, version and command, family, length.
const FIXED: usize = 16;
/// Maximum length of an accepted header of version 2: addresses and some extensions.
const LONGEST_BINARY: usize = 4096;

/// The meaning of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The beginning of a header.
    Incomplete,
    /// A header of this length, with the client's address. There is no address if the load balancer connects on its own
    /// behalf, or if the header does not name a TCP connection.
    Complete(usize, Option<SocketAddr>),
    /// Bytes that are not a header.
    Malformed,
}

/// Parses the first bytes of a connection.
pub(super) fn parse(bytes: &[u8]) -> Header {
    let begins = |beginning: &[u8]| {
        let common = bytes.len().min(beginning.len());
        bytes[..common] == beginning[..common]
    };
    if begins(BINARY) {
        binary(bytes)
    } else if begins(TEXT) {
        text(bytes)
    } else {
        Header::Malformed
    }
}

fn text(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).take(LONGEST_TEXT - 1).position(|two| two == b"\r\n") else {
        return if bytes.len() < LONGEST_TEXT {
            Header::Incomplete
        } else {
            Header::Malformed
        };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else {
        return Header::Malformed;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => match (source.parse::<IpAddr>(), port.parse()) {
            (Ok(ip), Ok(port)) if ip.is_ipv4() == (family == "TCP4") => Some(SocketAddr::new(ip, port)),
            _ => return Header::Malformed,
        },
        _ => return Header::Malformed,
    };
    Header::Complete(end + 2, client)
}

fn binary(bytes: &[u8]) -> Header {
    let Some([.., command, family, high, low]) = bytes.first_chunk::<FIXED>() else {
        return Header::Incomplete;
    };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Header::Malformed,
    };
    if length > LONGEST_BINARY {
        return Header::Malformed;
    }
    let Some(addresses) = bytes.get(FIXED..length) else {
        return Header::Incomplete;
    };
    let port = |at: usize| Some(u16::from_be_bytes([*addresses.get(at)?, *addresses.get(at + 1)?]));
    let client = match family {
        _ if is_local => None,
        // TCP over IPv4: both addresses, then both ports.
        0x11 => match (addresses.first_chunk::<4>(), port(8)) {
            (Some(ip), Some(port)) if addresses.len() >= 12 => Some(SocketAddr::from((Ipv4Addr::from(*ip), port))),
            _ => return Header::Malformed,
        },
        // TCP over IPv6.
        0x21 => match (addresses.first_chunk::<16>(), port(32)) {
            (Some(ip), Some(port)) if addresses.len() >= 36 => Some(SocketAddr::from((Ipv6Addr::from(*ip), port))),
            _ => return Header::Malformed,
        },
        // Unix sockets, datagrams, and future families: the connection is accepted, its addresses are ignored.
        _ => None,
    };
    Header::Complete(length, client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, addresses].concat()
    }

    fn ipv4() -> Vec<u8> {
        version_2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x15, 0x38])
    }

    fn client(address: &str) -> Option<SocketAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn headers_name_the_client() {
        let ipv6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0xd4, 0x31, 0x15, 0x38]].concat();
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 5432\r\n".to_vec(),
                client("192.0.2.7:54321"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 fd00::1 54321 5432\r\n".to_vec(),
                client("[2001:db8::7]:54321"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (ipv4(), client("192.0.2.7:54321")),
            (version_2(0x21, 0x21, &ipv6), client("[::1]:54321")),
            (
                version_2(0x21, 0x11, &[ipv4()[16..].to_vec(), vec![4, 0, 1, 0]].concat()),
                client("192.0.2.7:54321"),
            ),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            let with_more = [&header[..], &b"\0\0\0\x08"[..]].concat();
            assert_eq!(
                parse(&with_more),
                Header::Complete(header.len(), expected),
                "{header:?}"
            );
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Header::Incomplete, "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let long = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        for bytes in [
            &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 5432\r\n",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY \xff\xff\r\n",
            &long,
            &version_2(0x31, 0x11, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 11]),
            &version_2(0x21, 0x21, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(parse(bytes), Header::Malformed, "{bytes:?}");
        }
    }
}
