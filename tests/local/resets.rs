//! A reset on one side becomes a reset on the other, after the bytes that were sent before it.

use pgnorth::ending::Ending;
use tokio::io::AsyncWriteExt;

use super::support::{Rig, assert_reset, read_all, reset, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_reset_reaches_the_leader() {
    let (rig, backend) = Rig::routed().await;
    let (client, mut leader) = rig.session(&backend).await;
    reset(client);
    assert_reset(read_all(&mut leader).await.1);
    rig.ends(Ending::ClientLost, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_reset_reaches_the_client_and_discovery() {
    let (mut rig, backend) = Rig::routed().await;
    let (mut client, leader) = rig.session(&backend).await;
    reset(leader);
    assert_reset(read_all(&mut client).await.1);
    rig.ends(Ending::LeaderLost, 1).await;
    let failure = within("a leader failure", rig.leader_failures.recv()).await.unwrap();
    assert_eq!(failure.member, "pg-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_last_bytes_before_a_reset_reach_the_client() {
    // A PostgreSQL that ends a session with unread bytes in its socket: first its error message, then a reset.
    let (rig, backend) = Rig::routed().await;
    for _ in 0..20 {
        let (mut client, mut leader) = rig.session(&backend).await;
        client.write_all(b"a query that nobody will read").await.unwrap();
        // Arrived and unread.
        assert_eq!(within("the query", leader.peek(&mut [0])).await.unwrap(), 1);
        leader.write_all(b"FATAL: terminating connection").await.unwrap();
        drop(leader);
        let (text, end) = read_all(&mut client).await;
        assert_eq!(text, b"FATAL: terminating connection");
        assert_reset(end);
    }
    rig.ends(Ending::LeaderLost, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_answer_to_a_close_loses_nothing() {
    // The end of every TLS session: PostgreSQL never reads the client's last record.
    let (mut rig, backend) = Rig::routed().await;
    let (mut client, leader) = rig.session(&backend).await;
    client.write_all(b"terminate, close_notify").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(within("the last bytes", leader.peek(&mut [0])).await.unwrap(), 1);
    drop(leader);
    assert_reset(read_all(&mut client).await.1);
    rig.ends(Ending::ClientClosed, 1).await;
    assert!(rig.leader_failures.try_recv().is_err(), "no leader failure is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_reset_while_the_leader_reads_nothing_is_noticed() {
    let (rig, backend) = Rig::with_user_timeout(std::time::Duration::from_secs(2)).await;
    let (client, mut leader) = rig.session(&backend).await;
    // Fills all buffers between the two, so that the proxy no longer reads the client.
    let chunk = vec![0; 1 << 20];
    let mut stalled = 0;
    while stalled < 50 {
        match client.try_write(&chunk) {
            Ok(_) => stalled = 0,
            Err(_) => {
                stalled += 1;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
    reset(client);
    until("the session ends", || rig.metrics.endings(Ending::ClientLost) == 1).await;
    assert_reset(read_all(&mut leader).await.1);
}
