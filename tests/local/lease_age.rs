//! A leader that answers and does not renew its lock: the age of the lock is visible until the fence.

use crate::fake_cluster::{FakeCluster, Product, eventually};

/// The leader is asked every 2 s: an age above that is not the time since its last answer.
#[tokio::test]
async fn a_lock_grows_old_though_the_leader_answers() {
    let cluster = FakeCluster::start(6).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    cluster.freeze();
    let asked = cluster.a.asked();
    eventually(
        "more than half of the ttl has passed since the last renewal",
        async || {
            let metrics = product.page("/metrics").await.1;
            assert!(metrics.contains("\npgnorth_fences_total 0\n"), "fenced, and never old");
            let age = metrics
                .lines()
                .find_map(|line| line.strip_prefix("pgnorth_lock_age_seconds "));
            (age.unwrap().parse::<f64>().unwrap() > 3.0).then_some(())
        },
    )
    .await;
    assert!(cluster.a.asked() > asked, "it answered meanwhile");
    product
        .decides("fence", None, "a has not renewed the leader lock for 6 s")
        .await;
}
