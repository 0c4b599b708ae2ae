//! The lock moves before the promotion ends: sessions to the former leader end with the move, and clients wait until
//! the new leader reports that it accepts writes.

use crate::fake_cluster::{FakeCluster, Product, Session, eventually};

#[tokio::test]
async fn clients_wait_from_the_lock_to_the_promotion() {
    let cluster = FakeCluster::start(4).await;
    let product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;
    assert_eq!(session.member, "a");
    session.lives().await;

    // a does not know yet, and still reports that it leads.
    cluster.b.is_being_promoted();
    cluster.lock_moves_to("b");
    session.ends().await;
    let early = product.client().await;
    product
        .decides("hold", None, "b is not ready for writes: its role is not primary")
        .await;
    let late = product.client().await;
    let asked = cluster.b.asked();
    eventually("b is asked again and again", async || {
        (cluster.b.asked() >= asked + 10).then_some(())
    })
    .await;
    assert_eq!((cluster.a.visits(), cluster.b.visits()), (1, 0));

    cluster.b.is_primary(2);
    assert_eq!(Session::of(early).await.member, "b");
    assert_eq!(Session::of(late).await.member, "b");
    let leader = product.leader().await;
    assert_eq!((&leader["member"], &leader["timeline"]), (&"b".into(), &2.into()));
    assert_eq!(cluster.a.visits(), 1);
}
