//! etcd as the source, with TLS and without: what Kubernetes shows of a cluster, etcd shows, too.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{Dcs, Product, Rig, Settings, session, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// ttl is 20 s.
const OUTAGE: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn etcd_announces_a_switchover_and_loses_the_lock_of_a_dead_leader() {
    let with_tls = Settings {
        etcd_tls: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Etcd, with_tls).await;
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
    product
        .wait_for_event("etcd serves Patroni's keys again", FAILOVER)
        .await;
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

#[tokio::test]
async fn two_of_three_etcds_are_gone_and_failsafe_mode_decides_what_happens() {
    let failsafe = Settings {
        failsafe: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Etcd, failsafe).await;
    let product = Product::start_on_etcd(&rig, &[]).await;
    product.wait_until_writable(SOON).await;
    let open = session(product.address()).await.expect("a session");
    let reason = async || product.admin_get("/leader").await.json()["reason"].to_string();

    // Longer than ttl. The etcd that is left answers no linearizable read.
    rig.etcd().stop_majority();
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        open.query("select 1", &[]).await.expect("the session lives");
        product.wait_until_writable(SOON).await;
        sleep(Duration::from_secs(1)).await;
    }
    let without_etcd = reason().await;
    assert!(without_etcd.contains("because etcd cannot be read"), "{without_etcd}");
    rig.etcd().start_again().await;
    product
        .wait_for_event("etcd serves Patroni's keys again", FAILOVER)
        .await;
    rig.wait_until_whole(FAILOVER).await;
    open.query("select 1", &[]).await.expect("the session lives");
    assert_eq!(product.metric("pgnorth_fences_total", &[]).await, Some(0.0));

    rig.configure(&json!({"failsafe_mode": false})).await;
    rig.etcd().stop_majority();
    wait_until("the demoted leader gets no client", FAILOVER, async || {
        let leader = product.admin_get("/leader").await.json();
        (leader["state"] != "route").then_some(())
    })
    .await;
    rig.etcd().start_again().await;
    product.wait_until_writable(FAILOVER).await;
}
