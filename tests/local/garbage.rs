//! Malformed annotations of every kind: they are reported by object and annotation; there is never a crash, a route to
//! a wrong server, or a visible secret.

use serde_json::{Value, json};

use crate::fake_cluster::{FakeCluster, Product, Session};

const SECRET: &str = "hunter2";

#[tokio::test]
async fn garbage_beside_the_lock_is_named_and_changes_nothing() {
    let cluster = FakeCluster::start(4).await;
    let mut product = Product::start(&cluster, &["--log", "debug"]).await;
    let mut session = product.session().await;
    assert_eq!(session.member, "a");

    cluster.annotate("ttl", "x");
    product.tells("WARN", &["endpoints default/pg", "`ttl`", "\"x\""]).await;
    for config in ["{", "", "7", "\"hunter2\"", "[{\"password\": \"hunter2\"}]"] {
        cluster
            .api
            .put("endpoints", "pg-config", &json!({"config": config, "leader": "b"}));
    }
    product
        .tells("WARN", &["endpoints default/pg-config", "`config`"])
        .await;
    let wrong_kinds = json!({"ttl": "x", "pause": "yes", "standby_cluster": SECRET}).to_string();
    cluster
        .api
        .put("endpoints", "pg-config", &json!({"config": wrong_kinds}));
    cluster.api.put(
        "endpoints",
        "pg-failover",
        &json!({"leader": "a", "scheduled_at": "tomorrow"}),
    );
    product
        .tells("WARN", &["endpoints default/pg-failover", "`scheduled_at`"])
        .await;
    for status in [
        "{",
        "[]",
        "\"hunter2\"",
        "{\"conn_url\": \"postgres://u:hunter2@/db\"}",
        "{\"timeline\": \"hunter2\"}",
    ] {
        cluster.api.put("pods", "b", &json!({"status": status}));
    }
    product.tells("WARN", &["pod b", "`status`", "conn_url"]).await;
    product.tells("WARN", &["pod b", "`status`", "JSON"]).await;

    session.lives().await;
    assert_eq!(product.session().await.member, "a");
    product.decides("route", Some("a"), "a holds the leader lock").await;
    assert_eq!(cluster.b.visits(), 0);
    product.keeps_secret(SECRET).await;
    product.lives();
}

#[tokio::test]
async fn of_three_objects_with_a_leader_only_the_exact_name_counts() {
    let cluster = FakeCluster::start(4).await;
    cluster.b.is_primary(1);
    for name in ["pg-failover", "pg-sync", "pg-config", "pg-leader", "pg2", "pg-0"] {
        let annotations = json!({"leader": "b", "ttl": "4", "renewTime": "9999", "transitions": "7"});
        cluster.api.put("endpoints", name, &annotations);
        if name != "pg-leader" {
            cluster.api.put("configmaps", name, &annotations);
        }
    }
    cluster.api.put("configmaps", "pg", &json!({"leader": "b"}));
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "a holds the leader lock").await;
    assert_eq!(product.session().await.member, "a");
    assert_eq!(cluster.b.visits(), 0);
}

#[tokio::test]
async fn a_malformed_annotation_is_logged_once_and_not_at_every_renewal() {
    let cluster = FakeCluster::start(4).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "a holds the leader lock").await;
    cluster.annotate("ttl", "x");
    for written in ["1", "2", "3"] {
        cluster.annotate("optime", written);
        cluster
            .api
            .put("pods", "b", &json!({"status": "{    x", "written": written}));
    }
    // The events of one watch are read in their order: when a problem is reported, all before it have been read.
    cluster.annotate("ttl", "y");
    cluster.api.put("pods", "b", &json!({"status": "{"}));
    product.tells("WARN", &["endpoints default/pg", "\"y\""]).await;
    product.tells("WARN", &["pod b", "column 1)"]).await;
    let log = product.log();
    assert_eq!(log.matches("annotation `ttl` is not").count(), 2, "{log}");
    assert_eq!(log.matches("pod b: annotation `status`").count(), 2, "{log}");
}

/// Moves the lock to a holder that cannot be reached: no client gets a session until the lock names a leader that can
/// be.
async fn no_client_gets_a_session(spoil: impl FnOnce(&FakeCluster), reason: &str) {
    let cluster = FakeCluster::start(4).await;
    let mut product = Product::start(&cluster, &["--log", "debug"]).await;
    let session = product.session().await;
    cluster.b.is_primary(2);
    spoil(&cluster);
    session.ends().await;
    product.decides("hold", None, reason).await;
    assert_eq!(product.page("/leader").await.0, 503);
    let waiting = product.client().await;
    product.keeps_secret(SECRET).await;

    cluster.api.put("pods", "b", &cluster.b.pod("primary"));
    cluster.lock_moves_to("b");
    assert_eq!(Session::of(waiting).await.member, "b");
    assert_eq!(cluster.a.visits(), 1);
    product.lives();
}

#[tokio::test]
async fn a_leader_that_is_no_pod_gets_no_client() {
    no_client_gets_a_session(|cluster| cluster.lock_moves_to("ghost"), "has an address of ghost").await;
}

#[tokio::test]
async fn an_empty_leader_gets_no_client() {
    no_client_gets_a_session(|cluster| cluster.lock_moves_to(""), "released").await;
}

#[tokio::test]
async fn a_leader_whose_status_is_no_json_gets_no_client() {
    let spoil = |cluster: &FakeCluster| {
        cluster.api.put("pods", "b", &json!({"status": "hunter2"}));
        cluster.lock_moves_to("b");
    };
    no_client_gets_a_session(spoil, "b holds the leader lock, but has not confirmed").await;
}

#[tokio::test]
async fn a_leader_whose_conn_url_names_no_host_gets_no_client() {
    let spoil = |cluster: &FakeCluster| {
        let pod: Value = cluster
            .b
            .pod_with_conn_url("primary", "postgres://postgres:hunter2@/postgres");
        cluster.api.put("pods", "b", &pod);
        cluster.lock_moves_to("b");
    };
    no_client_gets_a_session(spoil, "pod b: annotation `status` has a conn_url").await;
}

#[tokio::test]
async fn a_password_in_conn_url_is_never_shown() {
    let cluster = FakeCluster::start(4).await;
    let product = Product::start(&cluster, &["--log", "debug"]).await;
    let conn_url = format!("postgres://postgres:{SECRET}@{}/postgres", cluster.b.postgres);
    cluster
        .api
        .put("pods", "b", &cluster.b.pod_with_conn_url("primary", &conn_url));
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");
    product.decides("route", Some("b"), "b holds the leader lock").await;
    assert_eq!(product.session().await.member, "b");
    product.keeps_secret(SECRET).await;
}
