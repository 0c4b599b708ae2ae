//! The rig itself: the cluster that it starts is whole, and each fault does what its name says. Every other test of
//! this folder relies on these.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::kubernetes::User;
use crate::support::psql::psql_with;
use crate::support::{Dcs, Member, Product, Rig, Settings, session, wait_until};

/// With ttl 20, the next primary is writable about 21 s after its predecessor's end.
const FAILOVER: Duration = Duration::from_secs(60);
const REJOIN: Duration = Duration::from_secs(60);

const ENDPOINTS: &str = "endpoints/patronidemo";
const CONFIG_MAP: &str = "configmaps/patronidemo-leader";

#[tokio::test]
async fn endpoints_hold_the_lock_and_a_switchover_moves_it() {
    let rig = Rig::start(Dcs::Endpoints).await;
    assert_one_leader_and_two_replicas(&rig).await;
    assert_eq!(lock_holder(&rig, ENDPOINTS).await, "patronidemo-0");
    assert_eq!(rig.kubernetes().object(CONFIG_MAP).await, None);
    assert_pods_look_as_in_a_real_cluster(&rig).await;

    rig.switchover(Some("patronidemo-2")).await;
    let leader = rig.wait_for_new_leader(rig.member(0), FAILOVER).await;
    assert_eq!(leader.name(), "patronidemo-2");
    assert_eq!(lock_holder(&rig, ENDPOINTS).await, "patronidemo-2");
    rig.wait_until_whole(REJOIN).await;
    assert_one_leader_and_two_replicas(&rig).await;
}

#[tokio::test]
async fn config_maps_hold_the_lock() {
    let rig = Rig::start(Dcs::ConfigMaps).await;
    assert_one_leader_and_two_replicas(&rig).await;
    assert_eq!(lock_holder(&rig, CONFIG_MAP).await, "patronidemo-0");
    assert_eq!(rig.kubernetes().object(ENDPOINTS).await, None);
}

#[tokio::test]
async fn etcd_holds_the_lock() {
    let rig = Rig::start(Dcs::Etcd).await;
    assert_one_leader_and_two_replicas(&rig).await;
    assert_eq!(rig.kubeconfig(), None);
}

#[tokio::test]
async fn the_product_may_read_what_it_needs_and_nothing_else() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let status = async |method: &str, path: &str, body: Option<&Value>| {
        rig.kubernetes()
            .ask(User::Pgnorth, method, path, body)
            .await
            .expect("the API answers")
            .status
    };
    let list = async |namespace: &str, kind: &str, name: Option<&str>| {
        let selector = name.map_or(String::new(), |name| format!("?fieldSelector=metadata.name%3D{name}"));
        status("GET", &format!("/api/v1/namespaces/{namespace}/{kind}{selector}"), None).await
    };
    for (kind, lock) in [("endpoints", "patronidemo"), ("configmaps", "patronidemo-leader")] {
        for name in [lock, "patronidemo-failover", "patronidemo-config"] {
            assert_eq!(list("default", kind, Some(name)).await, 200, "list {kind} {name}");
            assert_eq!(
                list("kube-system", kind, Some(name)).await,
                403,
                "elsewhere: {kind} {name}"
            );
        }
        assert_eq!(list("default", kind, Some("another")).await, 403, "list {kind} another");
        assert_eq!(list("default", kind, None).await, 403, "list all {kind}");
    }
    assert_eq!(list("default", "pods", None).await, 200, "list pods");
    assert_eq!(list("kube-system", "pods", None).await, 403, "pods elsewhere");
    let single =
        "/api/v1/namespaces/default/endpoints?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dpatronidemo";
    assert_eq!(status("GET", single, None).await, 200, "watch one object");
    assert_eq!(
        status("GET", "/api/v1/namespaces/default/secrets", None).await,
        403,
        "list secrets"
    );
    let change = json!({"metadata": {"annotations": {"leader": "me"}}});
    let leader_object = "/api/v1/namespaces/default/endpoints/patronidemo";
    assert_eq!(
        status("PATCH", leader_object, Some(&change)).await,
        403,
        "write the lock"
    );
    assert_eq!(status("DELETE", leader_object, None).await, 403, "delete the lock");
}

#[tokio::test]
async fn an_outage_of_the_api_is_complete_and_failsafe_mode_keeps_the_primary() {
    let failsafe = Settings {
        failsafe: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Endpoints, failsafe).await;
    let ask = async || rig.kubernetes().ask(User::Admin, "GET", "/readyz", None).await;
    let is_failsafe = async |expected: bool| {
        let status = rig.member(0).status().await?;
        let active = status["failsafe_mode_is_active"].as_bool().unwrap_or(false);
        (active == expected && status["role"] == "primary").then_some(())
    };

    rig.kubernetes().api_stop();
    assert_eq!(
        ask().await.expect_err("the API is down").kind(),
        ErrorKind::ConnectionRefused
    );
    wait_until("failsafe mode is on", FAILOVER, async || is_failsafe(true).await).await;
    // A pgnorth that starts now finds the primary by its members' REST API.
    let product = Product::start(&rig, &["--patroni", &rig.member(2).rest_url()], &[]).await;
    assert_eq!(
        product.wait_until_writable(FAILOVER).await,
        rig.member(0).ip().to_string()
    );
    drop(product);
    rig.kubernetes().api_start().await;
    wait_until("failsafe mode is off", FAILOVER, async || is_failsafe(false).await).await;

    rig.kubernetes().api_freeze();
    assert_eq!(ask().await.expect_err("the API hangs").kind(), ErrorKind::TimedOut);
    rig.kubernetes().api_thaw();
    assert_eq!(ask().await.expect("the API is back").status, 200);
    assert_eq!(rig.leader().await.name(), "patronidemo-0");
}

#[tokio::test]
async fn settings_reach_patroni_and_both_tls_ports_work() {
    let settings = Settings {
        synchronous: true,
        rest_tls: true,
        dynamic: json!({"maximum_lag_on_failover": 4242}),
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Etcd, settings).await;
    assert!(rig.member(0).rest_url().starts_with("https://"));
    let config = rig
        .member(0)
        .get("/config")
        .await
        .expect("the REST API answers over TLS")
        .json();
    assert_eq!(config["maximum_lag_on_failover"], 4242);
    wait_until("a replica is synchronous", REJOIN, async || {
        let cluster = rig.cluster().await?;
        cluster["members"]
            .as_array()?
            .iter()
            .any(|member| member["role"] == "sync_standby")
            .then_some(())
    })
    .await;

    let authority = rig.authority().to_str().expect("an ASCII path");
    let verified = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", authority)];
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let is_encrypted = async |env: &[(&str, &str)]| psql_with(rig.member(0).address(), sql, env).await;
    assert_eq!(is_encrypted(&verified).await.as_deref(), Ok("t"));
    assert_eq!(is_encrypted(&[("PGSSLMODE", "disable")]).await.as_deref(), Ok("f"));
}

#[tokio::test]
async fn a_killed_host_is_dead_at_once_and_can_start_again() {
    let rig = Rig::start(Dcs::Etcd).await;
    let old = rig.leader().await;
    let timeline = timeline(old).await;
    old.kill_host();
    assert_eq!(old.process_count(), 0);
    assert_eq!(connect(old.address()).await, Err(ErrorKind::ConnectionRefused));

    let new = rig.wait_for_new_leader(old, FAILOVER).await;
    assert_eq!(self::timeline(new).await, timeline + 1);
    old.start();
    rig.wait_until_whole(REJOIN).await;
    assert_eq!(rig.leader().await.name(), new.name());
    assert_one_leader_and_two_replicas(&rig).await;
}

#[tokio::test]
async fn a_disconnected_host_is_unreachable_while_its_processes_run() {
    let rig = Rig::start(Dcs::Etcd).await;
    let old = rig.leader().await;
    let client = session(old.address()).await.expect("a session");
    let before = old.process_count();
    old.link_down();
    assert_eq!(connect(old.address()).await, Err(ErrorKind::TimedOut));
    assert!(
        timeout(Duration::from_secs(2), client.query("select 1", &[]))
            .await
            .is_err(),
        "the session got an answer"
    );
    assert!(!client.is_closed());
    assert!(
        old.process_count() >= before,
        "a process of the disconnected host has ended"
    );

    rig.wait_for_new_leader(old, FAILOVER).await;
    old.link_up();
    rig.wait_until_whole(REJOIN).await;
    assert_one_leader_and_two_replicas(&rig).await;
}

#[tokio::test]
async fn a_frozen_patroni_leaves_a_writable_primary_behind() {
    let rig = Rig::start(Dcs::Etcd).await;
    let old = rig.leader().await;
    old.freeze_patroni();
    assert_eq!(
        old.get("/primary").await.expect_err("Patroni hangs").kind(),
        ErrorKind::TimedOut
    );

    let new = rig.wait_for_new_leader(old, FAILOVER).await;
    for primary in [old, new] {
        primary
            .psql("create table split_brain ()")
            .await
            .expect("both are writable");
    }
    old.thaw_patroni();
    rig.wait_until_whole(REJOIN).await;
    assert_eq!(rig.leader().await.name(), new.name());
    assert_one_leader_and_two_replicas(&rig).await;
}

#[tokio::test]
async fn a_killed_backend_ends_every_session_under_the_same_postmaster() {
    let rig = Rig::start(Dcs::Etcd).await;
    let leader = rig.leader().await;
    let (postmaster, timeline) = (leader.postmaster(), timeline(leader).await);
    let bystander = session(leader.address()).await.expect("a session");
    leader.kill_backend().await;
    wait_until("the bystander's session is closed", REJOIN, async || {
        bystander.is_closed().then_some(())
    })
    .await;

    wait_until("writable again", REJOIN, async || {
        leader.psql("create table t ()").await.ok()
    })
    .await;
    assert_eq!(
        (leader.postmaster(), self::timeline(leader).await),
        (postmaster, timeline)
    );
    assert!(postmaster.is_some());
    assert_eq!(rig.leader().await.name(), leader.name());
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again_by_the_same_patroni() {
    let rig = Rig::start(Dcs::Etcd).await;
    let leader = rig.leader().await;
    let old = leader.postmaster().expect("PostgreSQL runs");
    leader.kill_postgres();
    wait_until("writable again", REJOIN, async || {
        leader.psql("create table t ()").await.ok()
    })
    .await;
    assert_ne!(leader.postmaster().expect("PostgreSQL runs again"), old);
    assert_eq!(rig.wait_for_leader(REJOIN).await.name(), leader.name());
}

#[tokio::test]
async fn a_patroni_that_is_stopped_releases_the_lock_and_stops_postgresql() {
    let rig = Rig::start(Dcs::Etcd).await;
    let old = rig.leader().await;
    old.stop_patroni_gracefully().await;
    assert_eq!(old.process_count(), 0);
    // Far sooner than the ttl: the lock was released and did not expire.
    rig.wait_for_new_leader(old, Duration::from_secs(10)).await;
    old.start();
    rig.wait_until_whole(REJOIN).await;
}

#[tokio::test]
async fn a_pause_reaches_every_member_and_ends() {
    let rig = Rig::start(Dcs::Etcd).await;
    for paused in [true, false] {
        if paused {
            rig.pause().await
        } else {
            rig.resume().await
        }
        for member in rig.members() {
            let status = member.status().await.expect("Patroni answers");
            assert_eq!(status["pause"].as_bool().unwrap_or(false), paused, "{}", member.name());
        }
    }
}

async fn assert_one_leader_and_two_replicas(rig: &Rig) {
    let leader = rig.leader().await;
    assert_eq!(leader.psql("select pg_is_in_recovery()").await.as_deref(), Ok("f"));
    let streaming = "select count(*) from pg_stat_replication where state = 'streaming'";
    assert_eq!(leader.psql(streaming).await.as_deref(), Ok("2"));
    assert_eq!(rig.others(leader).count(), 2);
    for replica in rig.others(leader) {
        assert!(!replica.is_primary().await, "{} is a primary, too", replica.name());
        assert_eq!(replica.psql("select pg_is_in_recovery()").await.as_deref(), Ok("t"));
    }
}

async fn assert_pods_look_as_in_a_real_cluster(rig: &Rig) {
    for member in rig.members() {
        let pod = rig
            .kubernetes()
            .object(&format!("pods/{}", member.name()))
            .await
            .expect("a pod");
        assert_eq!(pod["status"]["podIP"], json!(member.ip()));
        assert_eq!(pod["metadata"]["labels"]["cluster-name"], "patronidemo");
        let status = pod["metadata"]["annotations"]["status"]
            .as_str()
            .expect("Patroni's status of the pod");
        let status: Value = serde_json::from_str(status).expect("JSON");
        assert_eq!(status["conn_url"], format!("postgres://{}/postgres", member.address()));
    }
}

/// Returns the holder of the lock, from the leader object.
async fn lock_holder(rig: &Rig, object: &str) -> String {
    let object = rig.kubernetes().object(object).await.expect("the leader object exists");
    object["metadata"]["annotations"]["leader"]
        .as_str()
        .unwrap_or("nobody")
        .to_owned()
}

async fn timeline(member: &Member) -> u64 {
    member.status().await.expect("Patroni answers")["timeline"]
        .as_u64()
        .expect("a timeline")
}

/// Connects; returns the kind of failure, within two seconds.
async fn connect(address: SocketAddr) -> Result<(), ErrorKind> {
    let connected = timeout(Duration::from_secs(2), TcpStream::connect(address)).await;
    connected
        .map_err(|_| ErrorKind::TimedOut)?
        .map(drop)
        .map_err(|error| error.kind())
}
