//! `promtool`, Prometheus' own tool, reads the output of the real binary.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::fake_cluster::{FakeCluster, Product, Session, eventually};
use super::fake_patroni::Answer;
use super::support::within;

/// Returns its exit status and its whole output. It runs in deploy/monitoring.
pub async fn promtool(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; `tests/support/install.sh test` installs it"));
    // If it stops early, it need not read everything.
    let _ = tool.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = within("promtool ends", tool.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

async fn metrics(product: &Product) -> String {
    let (status, body) = product.page("/metrics").await;
    assert_eq!(status, 200);
    body
}

/// Waits for these lines in `/metrics`.
async fn shows(product: &Product, lines: &[&str]) {
    let what = format!("/metrics shows {lines:?}");
    eventually(&what, async || {
        let metrics = metrics(product).await;
        lines.iter().all(|line| metrics.contains(line)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn promtool_accepts_the_metrics_of_sessions_errors_and_a_failover() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &["--hold", "1s", "--max-sessions", "2"]).await;
    product.decides("route", Some("a"), "").await;
    let before = [
        "pgnorth_routing_state_info{state=\"route\",reason=\"lock_and_report\"} 1\n",
        "pgnorth_cluster_info{scope=\"pg\"} 1\n",
        "pgnorth_primaries 1\n",
    ];
    shows(&product, &before).await;
    let session = product.session().await;

    // Errors: the lock moves to a member that is not promoted, so that a client waits in vain; a client above the
    // limit; a REST API that closes the connection.
    cluster.lock_moves_to("b");
    session.ends().await;
    product.decides("hold", None, "b is not ready for writes").await;
    let not_writable = "pgnorth_routing_state_info{state=\"hold\",reason=\"not_writable\"} 1\n";
    shows(&product, &[not_writable, "pgnorth_routing 0\n"]).await;
    let _waits: [TcpStream; 3] = [product.client().await, product.client().await, product.client().await];
    let refused = [
        "pgnorth_sessions_ended_total{ending=\"hold_expired\"} 2\n",
        "pgnorth_sessions_ended_total{ending=\"full\"} 1\n",
    ];
    shows(&product, &refused).await;
    cluster.b.answers(Answer::Reset);
    eventually("a probe fails", async || {
        let failed = "pgnorth_probes_total{outcome=\"failed\"} 0\n";
        (!metrics(&product).await.contains(failed)).then_some(())
    })
    .await;

    cluster.b.is_primary(2);
    let through: Session = product.session().await;
    assert_eq!(through.member, "b");
    let after = [
        "pgnorth_leader_changes_total 1\n",
        "pgnorth_failover_seconds_count{phase=\"total\"} 1\n",
        "pgnorth_leader_info{member=\"b\"} 1\n",
    ];
    shows(&product, &after).await;

    let (code, said) = promtool(&["check", "metrics"], &metrics(&product).await).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

/// A tool that accepts everything would pass the test above.
#[tokio::test]
async fn promtool_finds_a_metric_without_help_and_unit() {
    let (code, said) = promtool(&["check", "metrics"], "pgnorth_lock_age_ms 3\n").await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no help text") && said.contains("ms"), "{said}");
}
