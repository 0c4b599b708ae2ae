//! A FIN ends one direction only, after everything before it was delivered.

use std::time::Duration;

use pgnorth::ending::Ending;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::support::{Random, Rig, read_all, read_to_end, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_a_megabyte_after_the_clients_shutdown_arrives_whole() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    let reply = Random(1).bytes(1 << 20);
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut leader).await, b"request");
    let expected = reply.clone();
    let sent = tokio::spawn(async move { leader.write_all(&reply).await });
    assert!(read_to_end(&mut client).await == expected, "the reply differs");
    within("the leader's send", sent).await.unwrap().unwrap();
    rig.ends(Ending::ClientClosed, 1).await;
    assert_eq!(rig.metrics.bytes_to_leader.get(), 1 + 7);
    assert_eq!(rig.metrics.bytes_to_client.get(), 1 + (1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_sending_after_the_leaders_shutdown() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    leader.write_all(b"no more").await.unwrap();
    leader.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"no more");
    let upload = Random(2).bytes(1 << 20);
    let expected = upload.clone();
    let sent = tokio::spawn(async move { client.write_all(&upload).await });
    assert!(read_to_end(&mut leader).await == expected, "the upload differs");
    within("the client's send", sent).await.unwrap().unwrap();
    rig.ends(Ending::LeaderClosed, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_leader_has_closed_ends_although_its_client_stays() {
    // An idle pool after pg_terminate_backend or a crash: it notices at the next use of the connection, which may be
    // hours later.
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    leader.write_all(b"FATAL: terminating connection").await.unwrap();
    drop(leader);
    rig.ends(Ending::LeaderClosed, 1).await;
    assert_eq!(read_to_end(&mut client).await, b"FATAL: terminating connection");
    // The next use fails as it would without a proxy.
    until("the client's sending fails", || client.try_write(b"a query").is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_still_sends_reads_the_leaders_last_bytes_before_the_close() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    // More than the sockets and the proxy can hold: a part is unread when the session is closed.
    let mut sent = tokio::io::BufWriter::new(&mut client);
    let _full = timeout(Duration::from_millis(500), sent.write_all(&vec![0; 128 << 20])).await;
    leader
        .write_all(b"FATAL: the database system is shutting down")
        .await
        .unwrap();
    leader.shutdown().await.unwrap();
    rig.ends(Ending::LeaderClosed, 1).await;
    let (text, _) = read_all(&mut client).await;
    assert_eq!(text, b"FATAL: the database system is shutting down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_although_its_leader_has_closed() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    let reply = Random(3).bytes(24 << 20);
    let expected = reply.clone();
    let sent = tokio::spawn(async move { leader.write_all(&reply).await });
    // Not a wait for an event: the client reads nothing for this time, and the leader may have closed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(read_to_end(&mut client).await == expected, "the reply differs");
    within("the leader's send", sent).await.unwrap().unwrap();
    rig.ends(Ending::LeaderClosed, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_client_sends_before_it_closes_reach_the_leader() {
    // A CancelRequest as drivers send it: 16 bytes and a FIN, at once, often before the leader is dialled.
    let (rig, backend) = Rig::routed().await;
    for _ in 0..50 {
        let mut client = rig.connect().await;
        client.write_all(b"0123456789abcdef").await.unwrap();
        drop(client);
        let mut leader = backend.accept().await;
        assert_eq!(read_to_end(&mut leader).await, b"0123456789abcdef");
    }
    rig.ends(Ending::ClientClosed, 50).await;
}
