//! Former evidence against a member does not count for ever: no restart is needed.

use std::time::Duration;

use super::fake_cluster::{FakeCluster, Product, Session};
use super::fake_patroni::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_expired_after_the_rest_api_failed_does_not_hold_clients_for_ever() {
    let cluster = FakeCluster::start(2).await;
    let product = Product::start(&cluster, &[]).await;
    product
        .decides("route", Some("a"), "says that it is a running primary")
        .await;
    cluster.a.answers(Answer::Reset);
    product
        .decides("route", Some("a"), "its REST API gives no valid answer")
        .await;
    cluster.freeze();
    product.decides("fence", None, "has not renewed the leader lock").await;
    // Patroni runs again. It does not write its pod's status, because the database is idle.
    let waiting = product.client().await;
    let renewing = async {
        for renewal in 0.. {
            cluster.annotate("renewTime", &format!("again {renewal}"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let session = tokio::select! {
        session = Session::of(waiting) => session,
        () = renewing => unreachable!("it renews for ever"),
    };
    assert_eq!(session.member, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_restored_onto_an_older_timeline_is_followed_with_a_warning() {
    let cluster = FakeCluster::start(2).await;
    cluster.a.is_primary(5);
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    cluster.a.is_replica(5);
    cluster.b.is_primary(3);
    cluster.lock_moves_to("b");
    product
        .decides("hold", None, "it is on timeline 3, and a leader was seen on timeline 5")
        .await;
    product.decides("route", Some("b"), "holds the leader lock").await;
    product
        .tells("WARN", &["gone back from timeline 5 to timeline 3"])
        .await;
}
