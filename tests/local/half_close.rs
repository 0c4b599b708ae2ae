//! A FIN one way ends that way only, after everything before it was delivered.

use pgnorth::ending::Ending;
use tokio::io::AsyncWriteExt;

use super::support::{Random, Rig, read_to_end, within};

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
async fn what_a_client_sends_before_it_closes_reaches_the_leader() {
    // A CancelRequest, as drivers send it: 16 bytes and a FIN, at once, often before the leader is dialled.
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
