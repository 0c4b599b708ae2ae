//! The limit of sessions: further clients are refused with the reason.

use pgnorth::ending::Ending;
use pgnorth::metrics::SessionState;
use pgnorth::proxy::Settings;
use tokio::io::AsyncWriteExt;

use super::refusal::{error_after, startup};
use super::support::{Backend, Rig, settings};

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_clients_get_53300_until_a_session_ends() {
    let rig = Rig::with(Settings {
        max_sessions: 2,
        ..settings()
    })
    .await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let first = rig.session(&backend).await;
    assert_eq!(rig.metrics.sessions_max.get(), 2);
    let _second = rig.session(&backend).await;
    for _ in 0..3 {
        let text = error_after(&mut rig.connect().await, &startup()).await;
        assert!(text.starts_with("53300 "), "{text}");
        assert!(text.contains("2 sessions"), "{text}");
    }
    assert_eq!(rig.metrics.endings(Ending::Full), 3);
    drop(first);
    rig.reaches(SessionState::Forwarding, 1).await;
    // The session's place is free a moment after the gauge has changed.
    let third = loop {
        let mut client = rig.connect().await;
        let opening = startup();
        tokio::select! {
            accepted = backend.accept() => break (client, accepted),
            text = error_after(&mut client, &opening) => assert!(text.starts_with("53300 "), "{text}"),
        }
    };
    // Its leader has not answered yet.
    rig.reaches(SessionState::Dialling, 1).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_takes_a_place_and_frees_it_when_it_leaves() {
    let rig = Rig::with(Settings {
        max_sessions: 1,
        ..settings()
    })
    .await;
    let mut waiting = rig.connect().await;
    waiting.write_all(&startup()).await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    let text = error_after(&mut rig.connect().await, &startup()).await;
    assert!(text.starts_with("53300 "), "{text}");
    drop(waiting);
    rig.reaches(SessionState::Held, 0).await;
}
