//! Many sessions end together with their leader's epoch.

use crate::fake_cluster::{FakeCluster, Product};
use crate::support::MANY_FILES;

const SESSIONS: usize = 5_000;

#[tokio::test]
async fn five_thousand_sessions_end_with_their_leader() {
    let _alone = MANY_FILES.lock().await;
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    let mut sessions = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        sessions.push(product.session().await);
    }
    cluster.b.is_being_promoted();
    cluster.lock_moves_to("b");
    let line = product
        .logs("every session is closed", |event| {
            event["fields"]["message"] == "every session to the former leader is closed"
        })
        .await;
    assert_eq!(line["fields"]["sessions"], SESSIONS);
    println!(
        "{SESSIONS} sessions were closed {} ms after the decision",
        line["fields"]["took_ms"]
    );
    for session in sessions {
        session.ends().await;
    }
}
