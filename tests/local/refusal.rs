//! A client that cannot be served gets a PostgreSQL error with the reason.

use std::time::Duration;

use pgnorth::ending::Ending;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Rig, read_all, read_exactly, read_to_end, settings};

pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

pub fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

/// Sends `opening`, and returns the error in the answer as `SQLSTATE text`.
pub async fn error_after(client: &mut TcpStream, opening: &[u8]) -> String {
    client.write_all(opening).await.unwrap();
    error_in(&read_to_end(client).await)
}

/// Returns the one message of an answer.
pub fn error_in(answer: &[u8]) -> String {
    assert_eq!(answer.first(), Some(&b'E'), "{answer:?}");
    let length = u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize;
    assert_eq!(answer.len(), 1 + length, "one message and nothing else");
    let fields: Vec<&[u8]> = answer[5..].split(|byte| *byte == 0).collect();
    let field = |kind: u8| {
        let found = fields.iter().find(|field| field.first() == Some(&kind));
        String::from_utf8(found.expect("the field is there")[1..].to_vec()).unwrap()
    };
    assert_eq!((field(b'S'), field(b'V')), ("FATAL".into(), "FATAL".into()));
    format!("{} {}", field(b'C'), field(b'M'))
}

async fn without_hold() -> Rig {
    Rig::with_hold(Duration::ZERO, settings()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_hold_deadline_a_postgresql_client_gets_the_reason() {
    let rig = without_hold().await;
    // As libpq does with sslmode=disable, without and with a Kerberos ticket. refusal_tls.rs has the cases with TLS.
    for requests in [&[][..], &[GSSENC_REQUEST]] {
        let mut client = rig.connect().await;
        for request in requests {
            client.write_all(request).await.unwrap();
            assert_eq!(read_exactly(&mut client, 1).await, b"N");
        }
        let text = error_after(&mut client, &startup()).await;
        assert!(text.starts_with("57P03 "), "{text}");
        assert!(text.contains("nobody holds the lock"), "{text}");
    }
    rig.ends(Ending::HoldExpired, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_arrives_in_pieces_is_understood() {
    let rig = without_hold().await;
    let mut client = rig.connect().await;
    let packet = startup();
    for byte in &packet[..packet.len() - 1] {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let text = error_after(&mut client, &packet[packet.len() - 1..]).await;
    assert!(text.starts_with("57P03 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_opening_are_closed_without_an_answer() {
    let rig = without_hold().await;
    let huge = [&0x7fff_ffff_u32.to_be_bytes()[..], b"\0\x03\0\0"].concat();
    let tiny = [&4_u32.to_be_bytes()[..], b"\0\x03\0\0"].concat();
    let version_2 = [&8_u32.to_be_bytes()[..], b"\0\x02\0\0"].concat();
    for opening in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), huge, tiny, version_2] {
        let mut client = rig.connect().await;
        client.write_all(&opening).await.unwrap();
        // A reset counts as an end: unread bytes turn the end into a reset.
        assert_eq!(read_all(&mut client).await.0, b"", "{opening:?}");
    }
    rig.ends(Ending::HoldExpired, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_encryption_for_ever_is_closed() {
    let rig = without_hold().await;
    let mut client = rig.connect().await;
    for _ in 0..100 {
        if client.write_all(&GSSENC_REQUEST).await.is_err() {
            break;
        }
    }
    assert!(read_all(&mut client).await.0.len() <= 3);
    rig.ends(Ending::HoldExpired, 1).await;
}
