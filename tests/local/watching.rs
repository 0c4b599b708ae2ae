//! `pgnorth watch` decides and records as the proxy does, and touches no PostgreSQL.

use serde_json::{Value, json};

use crate::fake_cluster::{FakeCluster, Product, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_is_recorded_without_sessions() {
    let cluster = FakeCluster::start(4).await;
    let mut watcher = Product::start_watcher(&cluster, &[]).await;
    watcher.decides("route", Some("a"), "").await;
    assert_eq!(watcher.page("/readyz").await.0, 200);

    cluster.b.is_being_promoted();
    cluster.lock_moves_to("b");
    watcher.decides("hold", None, "b is not ready for writes").await;
    cluster.b.is_primary(2);
    watcher.decides("route", Some("b"), "").await;

    let record = eventually("the change is recorded", async || {
        let failovers: Value = serde_json::from_str(&watcher.page("/failovers").await.1).unwrap();
        failovers.get(0).cloned()
    })
    .await;
    assert_eq!((&record["from"], &record["to"]), (&json!("a"), &json!("b")));
    let seconds = |field: &str| record[field].as_f64().unwrap();
    assert!(seconds("lock_moved_after_seconds") <= seconds("writable_after_seconds"));
    assert!(
        0.0 < seconds("held_seconds") && seconds("held_seconds") <= seconds("writable_after_seconds"),
        "{record}"
    );
    for of_sessions in [
        "first_session_after_seconds",
        "sessions_cut",
        "sessions_cut_in_seconds",
        "clients_held",
        "longest_hold_seconds",
    ] {
        assert_eq!(record[of_sessions], Value::Null, "{of_sessions}");
    }

    let status: Value = serde_json::from_str(&watcher.page("/status").await.1).unwrap();
    assert_eq!((&status["sessions"], &status["routes"]), (&Value::Null, &json!([])));
    assert_eq!(status["failovers"][0]["to"], "b");
    assert!(watcher.page("/").await.1.contains("<html"));
    let (_, metrics) = watcher.page("/metrics").await;
    assert!(metrics.contains("pgnorth_leader_changes_total 1\n"), "{metrics}");
    assert_eq!((cluster.a.visits(), cluster.b.visits()), (0, 0));

    watcher.is_asked_to_end();
    assert_eq!(watcher.ended().await, Some(0));
}
