//! Members by DNS name: the name is resolved at each dial, a pod's new address is followed, and an outage of DNS
//! affects new dials only.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::support::dns::name_of;
use crate::support::psql::psql_with;
use crate::support::{Dcs, Product, Rig, Settings, psql, session, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// A lock, because all rigs share one /etc/resolv.conf.
static RESOLV_CONF: Mutex<()> = Mutex::const_new(());

async fn rig_with_names() -> Rig {
    let settings = Settings {
        names: true,
        // A busy machine's API server must not look like a DNS outage: without it, Patroni demotes its primary after 5
        // s.
        failsafe: true,
        ..Settings::default()
    };
    Rig::start_with(Dcs::Endpoints, settings).await
}

#[tokio::test]
async fn a_pod_whose_address_changed_is_followed_without_a_restart() {
    let _mine = RESOLV_CONF.lock().await;
    let rig = rig_with_names().await;
    let pod = rig.kubernetes().object("pods/patronidemo-0").await.expect("a pod");
    let status = pod["metadata"]["annotations"]["status"].as_str().expect("a status");
    assert!(status.contains(&name_of("patronidemo-0")), "{status}");
    let product = Product::start(&rig, &[], &[]).await;
    assert_eq!(product.wait_until_writable(SOON).await, rig.member(0).ip().to_string());

    let moved = rig.network().host(40);
    rig.member(0).add_address(moved);
    rig.dns().set("patronidemo-0", moved);
    let moved = moved.to_string();
    wait_until("a dial follows the name", SOON, async || {
        let server = psql(product.address(), "select host(inet_server_addr())").await.ok()?;
        (server == moved).then_some(())
    })
    .await;
    assert_eq!(product.metric("pgnorth_leader_changes_total", &[]).await, Some(0.0));
}

#[tokio::test]
async fn a_name_server_that_hangs_or_fails_costs_a_new_dial_and_nothing_else() {
    let _mine = RESOLV_CONF.lock().await;
    let rig = rig_with_names().await;
    let product = Product::start(&rig, &["--hold", "3s"], &[]).await;
    product.wait_until_writable(SOON).await;
    let open = session(product.address()).await.expect("a session");
    let threads = thread_count(product.id());

    rig.dns().freeze();
    let began = Instant::now();
    let mut dials = tokio::task::JoinSet::new();
    for number in 0..100 {
        let address = product.address();
        // A hundred TLS handshakes of psql take seconds of CPU time: some suffice to show that the reason arrives
        // inside TLS, too.
        let mode = if number % 25 == 0 { "require" } else { "disable" };
        let environment = [("PGSSLMODE", mode), ("PGCONNECT_TIMEOUT", "30")];
        dials.spawn(async move { psql_with(address, "select 1", &environment).await });
    }
    open.query("select 1", &[]).await.expect("the open session continues");
    let mut seen = 0;
    while let Some(dial) = dials.join_next().await {
        let error = dial.unwrap().expect_err("no name is resolved");
        assert!(error.contains("no primary could be reached within 3s"), "{error}");
        seen += u32::from(error.contains("the name server did not answer within 1s"));
        let now = thread_count(product.id());
        assert!(now <= threads + 8, "{threads} threads before, {now} now");
    }
    println!(
        "the name server hangs: 100 clients refused after {:?}, {seen} got the reason",
        began.elapsed()
    );
    assert!(seen > 0, "no client got the reason");
    open.query("select 1", &[]).await.expect("the open session continues");
    rig.dns().thaw();
    let thawed = Instant::now();
    product.wait_until_writable(SOON).await;
    println!("dials again {:?} after the name server does", thawed.elapsed());

    rig.dns().stop();
    let error = wait_until("a dial fails", SOON, async || {
        psql(product.address(), "select 1").await.err()
    })
    .await;
    println!("the name server is gone: {error}");
    assert!(error.contains("its name cannot be resolved"), "{error}");
    open.query("select 1", &[]).await.expect("the open session continues");
    rig.dns().start_again();
    product.wait_until_writable(SOON).await;

    open.query("select 1", &[]).await.expect("the open session continues");
    for ending in ["leader_changed", "fenced", "leader_lost"] {
        let ended = product
            .metric("pgnorth_sessions_ended_total", &[("ending", ending)])
            .await;
        assert_eq!(ended, Some(0.0), "{ending}");
    }
}

fn thread_count(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task"))
        .expect("the product runs")
        .count()
}
