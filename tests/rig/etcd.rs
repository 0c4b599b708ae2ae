//! etcd as the source: what Kubernetes shows of a cluster, etcd shows, too.

use std::time::Duration;

use crate::support::{Dcs, Product, Rig, session, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// ttl is 20 s.
const FAILOVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn etcd_announces_a_switchover_and_loses_the_lock_of_a_dead_leader() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start_on_etcd(&rig, &[]).await;
    product.wait_until_writable(SOON).await;
    let open = session(product.address()).await.expect("a session");
    wait_until("the source is up", SOON, async || {
        let up = product.metric("pgnorth_source_up", &[("source", "etcd")]).await;
        (up == Some(1.0)).then_some(())
    })
    .await;
    let leader = product.admin_get("/leader").await.json();
    assert_eq!(leader["member"], "patronidemo-0", "{leader}");

    // An outage of etcd that is shorter than ttl: the members answer.
    rig.dcs_stop();
    wait_until("etcd is unreachable", FAILOVER, async || {
        let up = product.metric("pgnorth_source_up", &[("source", "etcd")]).await;
        (up == Some(0.0)).then_some(())
    })
    .await;
    open.query("select 1", &[]).await.expect("the session lives");
    rig.dcs_start().await;
    product.wait_for_event("etcd answers again", FAILOVER).await;
    open.query("select 1", &[]).await.expect("the session lives");
    rig.wait_until_whole(FAILOVER).await;

    rig.switchover(Some("patronidemo-1")).await;
    let leader = rig.wait_for_new_leader(rig.member(0), FAILOVER).await;
    let writable = product.wait_until_writable(FAILOVER).await;
    assert_eq!(writable, leader.ip().to_string());
    assert!(
        product
            .log()
            .contains("a switchover from patronidemo-0 to patronidemo-1 was announced"),
        "{}",
        product.log()
    );
    rig.wait_until_whole(FAILOVER).await;

    let old = rig.leader().await;
    old.kill_host();
    let leader = rig.wait_for_new_leader(old, FAILOVER).await;
    let writable = product.wait_until_writable(FAILOVER).await;
    assert_eq!(writable, leader.ip().to_string());
    let expired = product.log();
    assert!(expired.contains("has not renewed the leader lock"), "{expired}");
}
