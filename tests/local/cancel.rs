//! A CancelRequest goes at once to the leader whose sessions stay.

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::metrics::SessionState;
use pgnorth::proxy::Settings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Backend, Rig, read_exactly, read_to_end, reset, settings, until, within};

const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];

/// Sends a CancelRequest, and checks that the leader gets it now. libpq waits for the end of the connection, which the
/// leader closes.
async fn is_delivered(rig: &Rig, backend: &Backend) {
    let mut client = rig.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, 16).await, CANCEL);
    let early = client.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(
        early,
        Err(std::io::ErrorKind::WouldBlock),
        "closed before the leader has done it"
    );
    drop(leader);
    assert_eq!(read_to_end(&mut client).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_cancelled_while_new_clients_are_held() {
    let (rig, backend) = Rig::routed().await;
    let _session = rig.session(&backend).await;
    is_delivered(&rig, &backend).await;
    rig.slot.publish(
        RoutingState::Hold(Some(backend.leader.clone())),
        "an operator holds".into(),
    );
    is_delivered(&rig, &backend).await;
    assert_eq!(rig.metrics.endings(Ending::CancelSent), 2);
    assert_eq!(rig.sessions(SessionState::Forwarding), 1);
}

/// Protocol 3.2 allows keys of 256 bytes (PostgreSQL's manual, "Message Formats").
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_with_the_longest_key_arrives_whole() {
    let (rig, backend) = Rig::routed().await;
    let request = [&[0, 0, 1, 12, 4, 210, 22, 46, 0, 0, 0, 1][..], &[0xa5; 256]].concat();
    let mut client = rig.connect().await;
    // The first part looks like a whole request with a key of 4 bytes, but for its length.
    client.write_all(&request[..16]).await.unwrap();
    client.write_all(&request[16..]).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, request.len()).await, request);
    drop(leader);
    assert_eq!(read_to_end(&mut client).await, b"");
    rig.ends(Ending::CancelSent, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_whose_sender_has_gone_is_delivered() {
    let (rig, backend) = Rig::routed().await;
    rig.slot
        .publish(RoutingState::Hold(Some(backend.leader.clone())), "switchover".into());
    for _ in 0..50 {
        let mut client = rig.connect().await;
        client.write_all(&CANCEL).await.unwrap();
        drop(client);
        let mut leader = backend.accept().await;
        assert_eq!(read_exactly(&mut leader, 16).await, CANCEL);
    }
    rig.ends(Ending::CancelSent, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pgnorth_delivers_a_cancel_request_without_a_dial_permit() {
    let rig = Rig::with(Settings {
        max_sessions: 65,
        ..settings()
    })
    .await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let _session = rig.session(&backend).await;
    // The other 64 have every dial permit, and the leader does not answer them.
    let mut clients = Vec::new();
    let mut leaders = Vec::new();
    for _ in 0..64 {
        let mut client = rig.connect().await;
        client.write_all(&super::refusal::startup()).await.unwrap();
        leaders.push(backend.accept().await);
        clients.push(client);
    }
    rig.reaches(SessionState::Dialling, 64).await;
    is_delivered(&rig, &backend).await;
    let text = super::refusal::error_after(&mut rig.connect().await, &super::refusal::startup()).await;
    assert!(text.starts_with("53300 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_whose_sessions_stay_a_cancel_request_is_dropped_and_counted() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");
    rig.slot.publish(RoutingState::Fence, "the lock expired".into());
    let mut client = rig.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");
    rig.ends(Ending::CancelDropped, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_ends_with_its_leaders_epoch() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, 16).await, CANCEL);
    rig.route(&Backend::start("pg-1").await);
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(read_to_end(&mut leader).await, b"");
    reset(
        within("it can connect still", TcpStream::connect(rig.address))
            .await
            .unwrap(),
    );
    // The connection that was reset may never be accepted.
    until("the cancellation ends", || rig.metrics.endings(Ending::CancelSent) == 1).await;
}
