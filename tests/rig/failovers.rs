//! Three ways to change the primary, in all three modes of discovery: the new one is reached, the old sessions end, and no write goes to a replica.

use std::time::{Duration, Instant};

use crate::support::load::{Attempt, Load, Outcome};
use crate::support::{Dcs, Member, Product, Rig, psql, session, wait_until};

/// With ttl 20, the next primary is writable about 21 s after its predecessor's end.
const FAILOVER: Duration = Duration::from_secs(60);
/// From the new primary's first write to the product's: far more than it should take; a deadline against hanging.
const FOLLOW: Duration = Duration::from_secs(10);

enum Fault {
    Switchover,
    KillHost,
    LinkDown,
}

#[tokio::test]
async fn a_switchover_with_endpoints() {
    follows(Dcs::Endpoints, Fault::Switchover).await;
}

#[tokio::test]
async fn a_switchover_with_config_maps() {
    follows(Dcs::ConfigMaps, Fault::Switchover).await;
}

#[tokio::test]
async fn a_switchover_without_kubernetes() {
    follows(Dcs::Etcd, Fault::Switchover).await;
}

#[tokio::test]
async fn a_killed_host_with_endpoints() {
    follows(Dcs::Endpoints, Fault::KillHost).await;
}

#[tokio::test]
async fn a_killed_host_with_config_maps() {
    follows(Dcs::ConfigMaps, Fault::KillHost).await;
}

#[tokio::test]
async fn a_killed_host_without_kubernetes() {
    follows(Dcs::Etcd, Fault::KillHost).await;
}

#[tokio::test]
async fn a_vanished_host_with_endpoints() {
    follows(Dcs::Endpoints, Fault::LinkDown).await;
}

#[tokio::test]
async fn a_vanished_host_with_config_maps() {
    follows(Dcs::ConfigMaps, Fault::LinkDown).await;
}

#[tokio::test]
async fn a_vanished_host_without_kubernetes() {
    follows(Dcs::Etcd, Fault::LinkDown).await;
}

async fn follows(dcs: Dcs, fault: Fault) {
    let rig = Rig::start(dcs).await;
    let product = Product::start(&rig, &["--hold", "40s"], &[]).await;
    let old = rig.leader().await;
    assert_eq!(product.wait_until_writable(FOLLOW).await, old.ip().to_string());
    let idle = session(product.address()).await.expect("a session that stays");
    let load = Load::start(product.address(), 3).await;
    for member in rig.members() {
        wait_until("rows reach every member", FOLLOW, async || {
            let rows = member.psql("select count(*) from load").await.ok()?;
            (rows.parse::<u64>().ok()? > 0).then_some(())
        })
        .await;
    }

    let began = Instant::now();
    match fault {
        Fault::Switchover => rig.switchover(None).await,
        Fault::KillHost => old.kill_host(),
        Fault::LinkDown => old.link_down(),
    }
    let new = rig.wait_for_new_leader(old, FAILOVER).await;
    let writable = Instant::now();
    wait_until("a client reaches the new primary", FOLLOW, async || {
        let server = psql(product.address(), "select host(inet_server_addr())").await.ok()?;
        (server == new.ip().to_string()).then_some(())
    })
    .await;
    eprintln!(
        "writable after {:?}, reached {:?} later",
        writable - began,
        writable.elapsed()
    );
    wait_until("the session to the old primary ends", FOLLOW, async || {
        idle.is_closed().then_some(())
    })
    .await;
    let attempts = load.finish().await;

    check_writes(&attempts, old, new);
    let told = product.admin_get("/leader").await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.json()["member"], new.name());
    assert_eq!(product.metric("pgnorth_leader_changes_total", &[]).await, Some(1.0));
}

/// Rows are acknowledged by the old primary, then by the new one, in this order; none by a replica, and no write meets a read-only server.
fn check_writes(attempts: &[Attempt], old: &Member, new: &Member) {
    let mut acknowledged = Vec::new();
    for attempt in attempts {
        match &attempt.outcome {
            Outcome::Acknowledged { server } => acknowledged.push((attempt.ended, server.as_str())),
            Outcome::ReadOnly(error) => panic!("a write went to a read-only server: {error}"),
            Outcome::NotConnected(error) => {
                eprintln!("not connected after {:?}: {error}", attempt.ended - attempt.started)
            }
            Outcome::Broken(error) => eprintln!("broken after {:?}: {error}", attempt.ended - attempt.started),
        }
    }
    acknowledged.sort();
    let (old, new) = (old.ip().to_string(), new.ip().to_string());
    let before = acknowledged.iter().take_while(|(_, server)| *server == old).count();
    let after = acknowledged
        .iter()
        .skip(before)
        .filter(|(_, server)| *server == new)
        .count();
    assert!(
        before > 0 && after > 0,
        "{before} rows before and {after} after the change"
    );
    assert_eq!(
        before + after,
        acknowledged.len(),
        "rows went to and fro between servers"
    );
}
