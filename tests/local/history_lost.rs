//! 410 Gone: the events since the last version are lost, so pgnorth lists again and follows the leader that it finds.

use std::time::{Duration, Instant};

use crate::fake_api::Gone;
use crate::fake_cluster::{FakeCluster, Product, eventually};

async fn follows_after(how: Gone) {
    // The check of an overdue renewal comes after half a ttl, which is too late to explain the recovery.
    let cluster = FakeCluster::start(1800).await;
    let product = Product::start(&cluster, &[]).await;
    let session = product.session().await;
    assert_eq!(session.member, "a");

    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    cluster.api.lose_history(how, || cluster.lock_moves_to("b"));

    session.ends().await;
    product.decides("route", Some("b"), "b holds the leader lock").await;
    assert_eq!(product.session().await.member, "b");
    assert!(cluster.api.gone_answers() > 0, "410 was answered");
    // It was an answer: no alert is due, and the lock remains valid.
    let log = product.log();
    assert!(
        !log.contains("cannot read or watch") && !log.contains("cannot be read"),
        "{log}"
    );
    assert_eq!(cluster.a.visits(), 1);
}

#[tokio::test]
async fn a_watch_that_is_refused_with_410_lists_again() {
    follows_after(Gone::Status).await;
}

#[tokio::test]
async fn a_watch_with_a_410_event_lists_again() {
    follows_after(Gone::Event).await;
}

#[tokio::test]
async fn an_api_without_history_is_listed_at_a_bounded_rate() {
    const WATCHES: u32 = 7;
    let cluster = FakeCluster::start(1800).await;
    let product = Product::start(&cluster, &[]).await;
    let session = product.session().await;

    let start = Instant::now();
    cluster.api.keep_no_history();
    eventually("410 was answered often", async || {
        (cluster.api.gone_answers() >= 4 * WATCHES).then_some(())
    })
    .await;
    assert!(start.elapsed() > Duration::from_secs(1), "in {:?}", start.elapsed());

    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
}
