//! A leader that released its lock may keep its sessions for a while, if the operator configures that; a fence never
//! waits.

use crate::fake_cluster::{FakeCluster, Product};

#[tokio::test]
async fn sessions_end_at_the_release_by_default() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    let session = product.session().await;
    cluster.annotate("leader", "");
    session.ends().await;
    product.decides("hold", None, "the leader lock was released").await;
}

#[tokio::test]
async fn sessions_continue_for_the_failover_drain_and_not_longer() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &["--failover-drain", "3s"]).await;
    let mut session = product.session().await;
    assert_eq!(session.member, "a");
    cluster.annotate("leader", "");
    product.decides("hold", None, "the leader lock was released").await;
    session.lives().await;
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");
    assert_eq!(product.session().await.member, "b");
    session.lives().await;
    session.ends().await;
}
