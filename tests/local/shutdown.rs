//! Draining: no new clients, time for the present ones, then the end.

use std::net::TcpListener;
use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::metrics::SessionState;
use tokio::io::AsyncWriteExt;

use super::refusal::{error_after, startup};
use super::support::{Backend, HANG, Rig, assert_reset, read_all, read_exactly, read_to_end, until, within};

async fn stop_accepting(rig: &Rig) {
    rig.drain.stop_accepting();
    // Read from the log, because a connection would be a session.
    until("the listener is closed", || TcpListener::bind(rig.address).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_continue_after_accepting_has_stopped_and_the_drain_waits_for_them() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    stop_accepting(&rig).await;
    let drain = rig.drain.clone();
    let draining = tokio::spawn(async move { drain.finish(HANG).await });
    client.write_all(b"more").await.unwrap();
    assert_eq!(read_exactly(&mut leader, 4).await, b"more");
    assert!(!draining.is_finished());
    drop((client, leader));
    assert_eq!(within("draining", draining).await.unwrap(), 0, "ended by force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_proxy_still_follows_the_leader() {
    let (rig, old) = Rig::routed().await;
    let (mut client, _leader) = rig.session(&old).await;
    stop_accepting(&rig).await;
    rig.route(&Backend::start("pg-1").await);
    assert_eq!(read_to_end(&mut client).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn remaining_sessions_are_ended_and_a_waiting_client_gets_the_reason() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    rig.slot.publish(
        pgnorth::leader::RoutingState::Hold(Some(backend.leader.clone())),
        "switchover".into(),
    );
    let mut waiting = rig.connect().await;
    waiting.write_all(&startup()).await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    stop_accepting(&rig).await;
    let drain = rig.drain.clone();
    let draining = tokio::spawn(async move { drain.finish(Duration::ZERO).await });
    let text = error_after(&mut waiting, b"").await;
    assert!(text.contains("shutting down"), "{text}");
    drop(waiting);
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_reset(read_all(&mut leader).await.1);
    within("draining", draining).await.unwrap();
    assert_eq!(rig.metrics.endings(Ending::Shutdown), 2);
    assert_eq!(
        rig.sessions(SessionState::Held) + rig.sessions(SessionState::Forwarding),
        0
    );
}
