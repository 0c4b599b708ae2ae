//! Kubernetes Events about pgnorth's own pod: their texts, one line for a missing right, and no delay for anything
//! else.

use serde_json::{Value, json};

use super::fake_cluster::{FakeCluster, Product, eventually};
use super::fake_patroni::FakeMember;

/// Few sessions, so that the limit of open files suffices and no line is logged about it.
const POD: [&str; 3] = ["--pod-name=pgnorth-0", "--pod-uid=0b1c", "--max-sessions=100"];

/// Moves the lock to a member and promotes it to this timeline; returns when clients go to it.
async fn move_to(member: &FakeMember, timeline: u32, cluster: &FakeCluster, product: &Product) {
    member.is_primary(timeline);
    cluster.lock_moves_to(member.name);
    product.decides("route", Some(member.name), "").await;
}

async fn events(cluster: &FakeCluster, count: usize) -> Vec<Value> {
    eventually(&format!("{count} Events"), async || {
        Some(cluster.api.written()).filter(|events| events.len() >= count)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_and_a_fence_are_events_about_the_pod() {
    let cluster = FakeCluster::start(3).await;
    let product = Product::start(&cluster, &POD).await;
    product.decides("route", Some("a"), "").await;
    move_to(&cluster.b, 2, &cluster, &product).await;
    cluster.freeze();
    product.decides("fence", None, "").await;
    let events = events(&cluster, 2).await;
    let [changed, fenced] = &events[..] else {
        panic!("two, and none for the leader that was found at first: {events:?}")
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "pgnorth-0", "namespace": "default", "uid": "0b1c"});
    for event in [changed, fenced] {
        assert_eq!(
            (&event["apiVersion"], &event["kind"]),
            (&json!("events.k8s.io/v1"), &json!("Event"))
        );
        assert_eq!(event["regarding"], pod);
        let by = (&event["reportingController"], &event["reportingInstance"]);
        assert_eq!(by, (&json!("pgnorth"), &json!("pgnorth-0")));
        let time = event["eventTime"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    assert_ne!(changed["metadata"]["name"], fenced["metadata"]["name"]);
    assert_eq!(
        (&changed["type"], &changed["reason"]),
        (&json!("Normal"), &json!("LeaderChanged"))
    );
    let note = changed["note"].as_str().unwrap();
    let [a, b] = [&cluster.a, &cluster.b].map(|member| format!("{} at {}", member.name, member.postgres));
    assert!(
        note.starts_with(&format!("leader changed from {a} to {b}; clients were held for ")),
        "{note}"
    );
    assert!(
        note.ends_with("b holds the leader lock and says that it is a running primary"),
        "{note}"
    );
    assert_eq!(
        (&fenced["type"], &fenced["reason"]),
        (&json!("Warning"), &json!("Fenced"))
    );
    let note = fenced["note"].as_str().unwrap();
    assert!(note.contains("b has not renewed the leader lock for 3 s"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_one_line_is_logged_and_no_more() {
    let cluster = FakeCluster::start(20).await;
    cluster.api.forbid("events");
    let product = Product::start(&cluster, &POD).await;
    product.decides("route", Some("a"), "").await;
    move_to(&cluster.b, 2, &cluster, &product).await;
    product
        .tells(
            "INFO",
            &[
                "rejects pgnorth's Kubernetes Events",
                "grant the service account create on events",
                "cannot create resource",
            ],
        )
        .await;
    move_to(&cluster.a, 3, &cluster, &product).await;
    move_to(&cluster.b, 4, &cluster, &product).await;
    let written = events(&cluster, 3).await;
    assert_eq!(written.len(), 3, "each was tried once");
    let sent: Vec<_> = product
        .events()
        .into_iter()
        .filter(|event| {
            event["fields"]["message"]
                .as_str()
                .unwrap_or_default()
                .contains("Events")
        })
        .collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(
        product.events().iter().all(|event| event["level"] == "INFO"),
        "{}",
        product.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_takes_no_events_delays_no_change_of_leader() {
    let cluster = FakeCluster::start(20).await;
    cluster.api.hang_writes();
    let product = Product::start(&cluster, &POD).await;
    product.decides("route", Some("a"), "").await;
    move_to(&cluster.b, 2, &cluster, &product).await;
    events(&cluster, 1).await;
    // The first request has no answer yet.
    for timeline in [3, 5, 7] {
        move_to(&cluster.a, timeline, &cluster, &product).await;
        move_to(&cluster.b, timeline + 1, &cluster, &product).await;
    }
    assert_eq!(product.session().await.member, "b");
    assert!(
        product.events().iter().all(|event| event["level"] == "INFO"),
        "{}",
        product.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pods_name_there_are_no_events() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    move_to(&cluster.b, 2, &cluster, &product).await;
    product.tells("INFO", &["leader changed"]).await;
    assert_eq!(cluster.api.written(), Vec::<Value>::new());
}
