//! A watch that stays open and tells nothing: an overdue renewal is asked for, and when that has no answer either, members' REST API decides.

use std::time::Duration;

use crate::fake_cluster::{FakeCluster, Product};

const TTL: u32 = 4;

#[tokio::test]
async fn a_silent_watch_is_noticed_and_the_new_leader_followed() {
    let cluster = FakeCluster::start(TTL).await;
    let product = Product::start(&cluster, &[]).await;
    let session = product.session().await;
    assert_eq!(session.member, "a");

    cluster.api.mute_watches();
    let gets = cluster.api.gets();
    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");

    // The lock is fresh and moves while nothing is told of it: it must not come to a fence, which would mean that only the clock was listened to.
    product.decides("route", Some("b"), "b holds the leader lock").await;
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
    assert!(cluster.api.gets() > gets, "the object was asked for");
    let log = product.log();
    assert!(!log.contains("fencing"), "no fence");
}

#[tokio::test]
async fn an_api_that_hangs_costs_no_session_and_rest_names_the_next_leader() {
    let cluster = FakeCluster::start(TTL).await;
    let product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;

    cluster.api.hang();
    product
        .decides("route", Some("a"), "the Kubernetes API does not answer")
        .await;
    // Longer than the lease, which nobody can be seen to renew now.
    tokio::time::sleep(Duration::from_secs(u64::from(TTL) + 1)).await;
    product
        .decides("route", Some("a"), "the Kubernetes API does not answer")
        .await;
    session.lives().await;
    product.tells("WARN", &["the Kubernetes API does not answer"]).await;
    let (_, metrics) = product.page("/metrics").await;
    let silent = metrics
        .lines()
        .any(|line| line.contains("source") && line.contains("kubernetes") && line.ends_with(" 0"));
    assert!(silent, "the source is down in\n{metrics}");

    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
    assert_eq!(cluster.a.visits(), 1);
}
