//! Clients behind a load balancer that sends a header of the PROXY protocol.

use pgnorth::config::Network;
use pgnorth::ending::Ending;
use pgnorth::metrics::SessionState;
use pgnorth::proxy::Settings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Backend, Rig, read_all, read_exactly, settings};
use crate::fake_cluster::{FakeCluster, Product};

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 5432\r\n";
/// A StartupMessage of protocol 3.
const STARTUP: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0";
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";

fn behind(network: &str) -> Settings {
    Settings {
        proxy_protocol: vec![Network::parse(network).unwrap()],
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_gets_the_clients_bytes_without_the_header() {
    let rig = Rig::with(behind("127.0.0.0/8")).await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let mut client = rig.connect().await;
    // In two parts, with the header's end in the second one.
    client.write_all(&HEADER[..20]).await.unwrap();
    client.write_all(&[&HEADER[20..], STARTUP].concat()).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, STARTUP.len()).await, STARTUP);
    leader.write_all(WELCOME).await.unwrap();
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    rig.reaches(SessionState::Forwarding, 1).await;
    client.write_all(b"query").await.unwrap();
    assert_eq!(read_exactly(&mut leader, 5).await, b"query");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_these_networks_without_a_header_is_closed() {
    let rig = Rig::with(behind("127.0.0.0/8")).await;
    let mut client = rig.connect().await;
    client.write_all(STARTUP).await.unwrap();
    let _reset_or_end = read_all(&mut client).await;
    rig.ends(Ending::NoStartup, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_from_elsewhere_is_not_read() {
    let rig = Rig::with(behind("10.0.0.0/8")).await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let mut client = rig.connect().await;
    client.write_all(HEADER).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(
        read_exactly(&mut leader, HEADER.len()).await,
        HEADER,
        "as any other bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_clients_address_and_a_missing_header() {
    let cluster = FakeCluster::start(20).await;
    let flags = [
        "--proxy-protocol-from",
        "127.0.0.0/8",
        "--log",
        "info,pgnorth::proxy=debug",
    ];
    let product = Product::start(&cluster, &flags).await;
    let mut client = TcpStream::connect(product.address).await.unwrap();
    client.write_all(&[HEADER, b"?"].concat()).await.unwrap();
    product
        .logs("a session of 192.0.2.7", |event| {
            event["fields"]["message"] == "session begins" && event["fields"]["peer"] == "192.0.2.7:54321"
        })
        .await;
    let _without = product.client().await;
    product.tells("WARN", &["--proxy-protocol-from"]).await;
}
