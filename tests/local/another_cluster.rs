//! Answers of another cluster never count: neither if no other cluster answers, nor beside the answers of the followed
//! one.

use serde_json::Value;

use crate::fake_cluster::{FakeCluster, Product, eventually};
use crate::fake_patroni::{Answer, FakeMember};

const OURS: &str = "7440000000000000000";
const THEIRS: &str = "7550000000000000000";

/// Returns a primary of each of two clusters.
async fn two_clusters(scope: &'static str) -> (FakeMember, FakeMember) {
    let ours = FakeMember::of("a", "pg", OURS).await;
    let theirs = FakeMember::of("z", scope, THEIRS).await;
    for member in [&ours, &theirs] {
        member.is_primary(1);
        member.lists(&[member]);
    }
    (ours, theirs)
}

#[tokio::test]
async fn without_our_rest_api_no_client_is_sent_to_the_other_cluster() {
    for scope in ["zz", "pg"] {
        let (ours, theirs) = two_clusters(scope).await;
        theirs.answers(Answer::Reset);
        let product = Product::start_by_rest(&[&ours, &theirs], &[]).await;
        product
            .decides("route", Some("a"), "a says that it is a running primary")
            .await;
        let mut session = product.session().await;
        session.lives().await;

        theirs.is_primary(7);
        ours.answers(Answer::Reset);
        session.ends().await;
        product.decides("hold", None, "ANOTHER CLUSTER answers for").await;
        let asked = theirs.asked();
        eventually("the other one is asked on and on", async || {
            (theirs.asked() >= asked + 4).then_some(())
        })
        .await;
        assert!(product.leader().await["member"].is_null());
        assert_eq!(theirs.visits(), 0);

        ours.is_primary(1);
        product
            .decides("route", Some("a"), "a says that it is a running primary")
            .await;
    }
}

#[tokio::test]
async fn two_clusters_that_answer_from_the_start_hold_until_the_scope_is_named() {
    let (ours, theirs) = two_clusters("zz").await;
    let product = Product::start_by_rest(&[&theirs, &ours], &[]).await;
    let named = r#"scope "pg" with system identifier "7440000000000000000" and scope "zz" with system identifier "7550000000000000000""#;
    product.decides("hold", None, named).await;
    assert_eq!((ours.visits(), theirs.visits()), (0, 0));

    let product = Product::start_by_rest(&[&theirs, &ours], &["--scope", "pg", "--kubernetes=false"]).await;
    product
        .decides("route", Some("a"), "a says that it is a running primary")
        .await;
    product.session().await.lives().await;
    assert_eq!(theirs.visits(), 0);
}

#[tokio::test]
async fn the_other_cluster_is_named_in_log_status_and_metric() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    let mut session = product.session().await;
    // A lock that is renewed beside such answers would be that of a cluster that was initialized again.
    cluster.freeze();
    cluster
        .a
        .answers(crate::fake_patroni::report_of("pg", THEIRS, "a", 200, "primary", 1));
    product
        .decides("hold", Some("a"), "ANOTHER CLUSTER answers for a")
        .await;
    session.lives().await;
    let words = ["another cluster answers for a", THEIRS, "ignores this answer"];
    product.tells("WARN", &words).await;
    let status: Value = serde_json::from_str(&product.page("/status").await.1).unwrap();
    assert_eq!(status["cluster"]["system"], OURS);
    assert_eq!(status["foreign"][0]["at"], "a");
    assert_eq!(status["foreign"][0]["cluster"]["system"], THEIRS);
    assert!(
        product
            .page("/metrics")
            .await
            .1
            .contains("\npgnorth_foreign_answers 1\n")
    );
    assert_eq!(product.log().matches("ignores this answer").count(), 1);

    cluster.a.is_primary(1);
    product.decides("route", Some("a"), "").await;
    product.tells("INFO", &["no other cluster answers now"]).await;
    session.lives().await;
}

#[tokio::test]
async fn a_citus_cluster_is_followed_by_its_group() {
    let cluster = FakeCluster::start(20).await;
    for (place, stem) in [("endpoints", "pg-1"), ("endpoints", "pg-1-config")] {
        cluster.api.put(
            place,
            stem,
            &serde_json::json!({"leader": "b", "ttl": "20", "renewTime": "1"}),
        );
    }
    cluster.b.is_primary(3);
    let product = Product::start(&cluster, &["--citus-group", "1", "--selector", "cluster-name=pg"]).await;
    product.decides("route", Some("b"), "b holds the leader lock").await;
}
