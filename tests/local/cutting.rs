//! The end of a leader's epoch ends its sessions at once: the client reads an end, and the former leader a reset.

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::metrics::SessionState;
use tokio::io::AsyncWriteExt;

use super::support::{Backend, MANY_FILES, Rig, assert_reset, read_all, read_exactly, read_to_end, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_end_with_their_leader_and_the_next_client_gets_the_new_one() {
    let _alone = MANY_FILES.lock().await;
    let (rig, old) = Rig::routed().await;
    let new = Backend::start("pg-1").await;
    let mut sessions = Vec::new();
    for _ in 0..1000 {
        sessions.push(rig.session(&old).await);
    }
    assert_eq!(rig.sessions(SessionState::Forwarding), 1000);
    rig.route(&new);
    for (mut client, mut leader) in sessions {
        assert_eq!(read_to_end(&mut client).await, b"");
        assert_reset(read_all(&mut leader).await.1);
    }
    rig.ends(Ending::LeaderChanged, 1000).await;
    rig.session(&new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_ends_sessions_and_holds_clients() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    rig.slot.publish(RoutingState::Fence, "the lock expired".into());
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_reset(read_all(&mut leader).await.1);
    rig.ends(Ending::Fenced, 1).await;
    let mut waiting = rig.connect().await;
    waiting.write_all(b"startup").await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_the_middle_of_a_stream_sees_a_reset_and_not_an_end() {
    let (rig, old) = Rig::routed().await;
    let new = Backend::start("pg-1").await;
    let (mut client, mut leader) = rig.session(&old).await;
    // The client reads a little and then nothing, so that the stream fills the proxy's buffers.
    let flood = tokio::spawn(async move {
        let bytes = vec![7; 1 << 20];
        while leader.write_all(&bytes).await.is_ok() {}
    });
    read_exactly(&mut client, 1 << 20).await;
    super::support::until("the stream backs up", || {
        let before = rig.metrics.bytes_to_client.get();
        std::thread::sleep(std::time::Duration::from_millis(300));
        rig.metrics.bytes_to_client.get() == before
    })
    .await;
    rig.route(&new);
    assert_reset(read_all(&mut client).await.1);
    within("the leader's side is reset", flood).await.unwrap();
    rig.ends(Ending::LeaderChanged, 1).await;
}
