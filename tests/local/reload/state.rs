//! What the new process goes on with beside clients: an operator's hold, records of changes of leader, histograms.

use rustix::process::Signal;
use serde_json::Value;

use super::{copy, fake, leader, reload, replace, text};
use crate::fake_cluster::{Product, Session, eventually};
use crate::fake_patroni::FakeMember;

const TOKEN: &str = "correct-horse-battery-staple";

async fn operator(product: &Product, path: &str) -> Value {
    let header = format!("Authorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n");
    let (status, body) = product.request("POST", path, &header).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_hold_goes_on_with_the_same_end() {
    let member = leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let flag = format!("--admin-token-file={}", token.display());
    let mut product = Product::start_by_rest(&[&member], &[&flag, "--hold=1h"]).await;
    let mut session = product.session().await;
    operator(&product, "/hold?for=30m").await;
    product.decides("hold", Some("a"), "held by an operator").await;
    let before = product.leader().await;
    let first = product.client().await;
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    session.lives().await;
    let after = product.leader().await;
    assert_eq!(after["reason"], before["reason"], "since and until are the same");
    let second = product.client().await;
    let held = "pgnorth_sessions{state=\"held\"} 2\n";
    eventually(held, async || {
        product.page("/metrics").await.1.contains(held).then_some(())
    })
    .await;
    assert!(
        product
            .page("/metrics")
            .await
            .1
            .contains("pgnorth_held_by_operator 1\n")
    );
    operator(&product, "/release").await;
    for client in [first, second] {
        Session::of(client).await.lives().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_changes_of_leader_and_histograms_go_on() {
    let (a, b) = (leader().await, FakeMember::start("b").await);
    a.lists(&[&a, &b]);
    b.lists(&[&a, &b]);
    let mut product = Product::start_by_rest(&[&a, &b], &["--hold=1h"]).await;
    let session = product.session().await;
    a.is_replica(2);
    product.decides("hold", Some("a"), "").await;
    let waiting = product.client().await;
    let held = "pgnorth_sessions{state=\"held\"} 1\n";
    eventually(held, async || {
        product.page("/metrics").await.1.contains(held).then_some(())
    })
    .await;
    b.is_primary(2);
    session.ends().await;
    Session::of(waiting).await.lives().await;
    let recorded = async |product: &Product| {
        let failovers: Vec<Value> = serde_json::from_str(&product.page("/failovers").await.1).unwrap();
        let metrics = product.page("/metrics").await.1;
        let is_histogram = |line: &&str| {
            ["pgnorth_failover_seconds_", "pgnorth_hold_seconds_"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let mut histograms: Vec<_> = metrics.lines().filter(is_histogram).map(str::to_owned).collect();
        // Families have no fixed order of labels.
        histograms.sort();
        (failovers, histograms)
    };
    let before = eventually("the change is recorded as a whole", async || {
        let recorded = recorded(&product).await;
        let is_whole = recorded.0.first()?["sessions_cut_in_seconds"].is_number();
        is_whole.then_some(recorded)
    })
    .await;
    assert_eq!(
        (before.0[0]["from"].as_str(), before.0[0]["to"].as_str()),
        (Some("a"), Some("b"))
    );
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    assert_eq!(recorded(&product).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_changes_of_leader_go_on_in_a_version_with_another_session_format() {
    let (a, b) = (leader().await, FakeMember::start("b").await);
    a.lists(&[&a, &b]);
    b.lists(&[&a, &b]);
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let product = Product::start_program(&binary, &[], &[&a, &b], &[]).await;
    let session = product.session().await;
    a.is_replica(2);
    b.is_primary(2);
    session.ends().await;
    product.session().await.lives().await;
    eventually("the change is recorded", async || {
        (product.page("/failovers").await.1.trim() != "[]").then_some(())
    })
    .await;
    // It ends at once if it gets no record.
    replace(&binary, &fake("differs", &b));
    let output = reload(product.id(), &[], &[]).await;
    assert!(output.status.success(), "{}", text(&output));
}
