//! Missing rights: pgnorth works with one kind of leader object, and reports every right that is missing by verb and
//! resource.

use crate::fake_cluster::{FakeCluster, Product};

#[tokio::test]
async fn pgnorth_works_without_rights_to_configmaps() {
    let cluster = FakeCluster::start(4).await;
    cluster.api.forbid("configmaps");
    let product = Product::start(&cluster, &[]).await;
    assert_eq!(product.session().await.member, "a");
    for object in ["pg-leader", "pg-failover", "pg-config"] {
        product
            .tells("INFO", &[&format!("configmaps default/{object}"), "forbidden", "list"])
            .await;
    }
    assert_eq!(product.page("/readyz").await.0, 200);
    product.decides("route", Some("a"), "a holds the leader lock").await;
    let events = product.events();
    // The watches' lines: discovery may repeat the reason, if it gets this error before the answer about the Endpoints.
    let of_configmaps = |event: &&serde_json::Value| {
        let message = event["fields"]["message"].as_str().unwrap_or_default();
        message.contains("configmaps")
    };
    let lines: Vec<_> = events.iter().filter(of_configmaps).collect();
    assert_eq!(lines.len(), 3, "one line an object: {lines:?}");
    assert!(lines.iter().all(|line| line["level"] == "INFO"), "{lines:?}");
}

#[tokio::test]
async fn without_any_right_pgnorth_is_not_ready_and_logs_why() {
    let cluster = FakeCluster::start(4).await;
    for kind in ["endpoints", "configmaps", "pods"] {
        cluster.api.forbid(kind);
    }
    let mut product = Product::start(&cluster, &[]).await;
    for (kind, needed) in [
        ("endpoints", "grant get, list and watch"),
        ("configmaps", "grant get, list and watch"),
        ("pods", "grant list and watch"),
    ] {
        product.tells("INFO", &[kind, "forbidden", needed]).await;
    }
    product.decides("hold", None, "cannot list resource").await;
    let leader = product.leader().await["reason"].to_string();
    assert!(
        leader.contains("forbidden") && leader.contains("default/pg"),
        "{leader}"
    );
    let (status, why) = product.page("/readyz").await;
    assert_eq!(status, 503, "{why}");
    assert!(
        why.contains("cannot list resource") && why.contains("default/pg"),
        "{why}"
    );
    assert_eq!(cluster.a.visits() + cluster.b.visits(), 0);
    product.lives();
}
