//! `pgnorth doctor`, the real binary: every problem is reported with its fix, a problem does not stop the other checks,
//! and secrets are not shown.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::fake_cluster::{FakeCluster, write_kubeconfig};
use crate::fake_patroni::{Answer, FakeMember};
use crate::support::within;

struct Outcome {
    code: Option<i32>,
    checks: Vec<Value>,
    /// The whole output, the log included.
    text: String,
}

/// Runs the doctor until it ends. `api` is the address in its kubeconfig.
async fn examine(api: Option<SocketAddr>, flags: &[&str]) -> Outcome {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.env_clear().env("HOME", folder.path());
    if let Some(api) = api {
        command
            .env("KUBECONFIG", write_kubeconfig(folder.path(), api))
            .args(["doctor", "--scope", "pg"]);
    } else {
        command.arg("doctor");
    }
    command
        .args(["--format", "json", "--log", "debug"])
        .args(["--max-sessions", "100"])
        .args(flags);
    let output = within("pgnorth doctor ends", command.output()).await.unwrap();
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let text = format!("{out}{log}");
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {text}"));
    Outcome {
        code: output.status.code(),
        checks: report["checks"].as_array().unwrap().clone(),
        text,
    }
}

impl Outcome {
    fn of_level(&self, level: &str) -> Vec<&Value> {
        self.checks.iter().filter(|check| check["level"] == level).collect()
    }

    /// Checks that one line of this level has these words.
    fn tells(&self, level: &str, words: &[&str]) {
        let fits = |check: &&Value| words.iter().all(|word| check.to_string().contains(word));
        assert!(
            self.of_level(level).iter().any(fits),
            "{level} {words:?} in {:#?}",
            self.checks
        );
    }

    /// Checks that nothing fails but the check with these words.
    fn fails_alone(&self, words: &[&str]) {
        self.tells("fail", words);
        assert_eq!(self.of_level("fail").len(), 1, "{:#?}", self.checks);
        assert_eq!(self.code, Some(1));
    }
}

/// Returns a cluster whose lock is renewed every half second, so that the test need not wait for 13 s.
async fn cluster() -> FakeCluster {
    let cluster = FakeCluster::start(20).await;
    let config = json!({"loop_wait": 1, "ttl": 20}).to_string();
    cluster.api.put("endpoints", "pg-config", &json!({"config": config}));
    cluster
}

#[tokio::test]
async fn a_healthy_cluster_is_ok_and_its_password_is_not_shown() {
    let cluster = cluster().await;
    let conn_url = format!("postgres://admin:hunter2@{}/postgres", cluster.a.postgres);
    cluster
        .api
        .put("pods", "a", &cluster.a.pod_with_conn_url("primary", &conn_url));
    let outcome = examine(Some(cluster.api.address), &[]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert_eq!(outcome.of_level("fail").len(), 0, "{:#?}", outcome.checks);
    outcome.tells(
        "ok",
        &["leader object", "endpoints default/pg: a holds the lock, ttl 20s"],
    );
    outcome.tells("ok", &["lock is renewed"]);
    outcome.tells("ok", &["2 pods in namespace default with cluster-name=pg: a, b"]);
    outcome.tells("ok", &["a, PostgreSQL", "TLS is off"]);
    outcome.tells("ok", &["a, REST API", "primary, running, timeline 1"]);
    // The fake has no clock.
    assert_eq!(outcome.of_level("warn").len(), 1, "{:#?}", outcome.checks);
    outcome.tells(
        "warn",
        &[
            "clock of the Kubernetes API",
            "not checked: its answers have no Date header",
        ],
    );
    assert!(!outcome.text.contains("hunter2"), "{}", outcome.text);
}

#[tokio::test]
async fn a_conn_url_that_cannot_be_read_fails_and_is_not_quoted() {
    let cluster = cluster().await;
    let conn_url = "postgres://admin:hunter2@a:99999/postgres";
    cluster
        .api
        .put("pods", "b", &cluster.b.pod_with_conn_url("replica", conn_url));
    let outcome = examine(Some(cluster.api.address), &[]).await;
    outcome.fails_alone(&["b, PostgreSQL", "conn_url", "connect_address"]);
    assert!(!outcome.text.contains("hunter2"), "{}", outcome.text);
}

#[tokio::test]
async fn a_check_that_fails_does_not_stop_the_others() {
    let cluster = cluster().await;
    cluster.freeze();
    cluster.annotate("renewTime", "for the last time");
    cluster.api.put("services", "pg", &json!({}));
    cluster.b.answers(Answer::Body("<html>".into()));
    let outcome = examine(
        Some(cluster.api.address),
        &["--selector", "cluster-name=pg,x=y", "--hold", "5s"],
    )
    .await;
    assert_eq!(outcome.code, Some(1));
    outcome.tells("fail", &["lock is renewed", "no renewal within 4s"]);
    outcome.tells(
        "fail",
        &[
            "pods",
            "0 pods",
            "a, which holds the lock, is not among them",
            "--selector cluster-name=pg",
        ],
    );
    outcome.tells("fail", &["service default/pg", "it has a selector"]);
    outcome.tells("fail", &["hold 5s, ttl 20s"]);
    outcome.tells("warn", &["members", "not checked: no member is known"]);
    outcome.tells("ok", &["rights on pods", "list, watch granted"]);
}

#[tokio::test]
async fn a_forbidden_read_is_named_and_its_dependent_checks_are_left_out() {
    let cluster = cluster().await;
    cluster.api.forbid("pods");
    cluster.api.forbid("services");
    let outcome = examine(Some(cluster.api.address), &[]).await;
    outcome.fails_alone(&["right to list pods", "every client is held", "grant verb list on pods"]);
    outcome.tells("warn", &["right to watch pods", "twice a second"]);
    for what in ["pods", "names of Services", "members"] {
        outcome.tells("warn", &[&format!("\"what\":\"{what}\""), "not checked: "]);
    }
    outcome.tells("ok", &["lock is renewed"]);
}

#[tokio::test]
async fn an_api_that_hangs_fails_and_members_are_still_asked() {
    let cluster = cluster().await;
    cluster.api.hang();
    let url = format!("http://{}", cluster.a.rest);
    let outcome = examine(Some(cluster.api.address), &["--patroni", &url]).await;
    assert_eq!(outcome.code, Some(1));
    outcome.tells("fail", &["credentials", "the Kubernetes API cannot be reached"]);
    outcome.tells(
        "warn",
        &["lock is renewed", "not checked: the Kubernetes API cannot be reached"],
    );
    outcome.tells("fail", &[&format!("{url}/cluster")]);
}

#[tokio::test]
async fn without_kubernetes_members_are_asked_alone() {
    let member = FakeMember::start("a").await;
    // One body for /cluster, /config and /primary.
    let body = |role: &str| {
        json!({
            "ttl": 20, "state": "running", "role": role, "timeline": 1,
            "members": [{
                "name": "a", "role": "leader", "state": "running", "timeline": 1, "api_url": format!("http://{}/patroni", member.rest),
                "host": "127.0.0.1", "port": member.postgres.port(),
            }],
        })
    };
    member.answers(Answer::Json(200, body("primary")));
    let url = format!("http://{}", member.rest);
    let outcome = examine(None, &["--patroni", &url]).await;
    assert_eq!(
        (outcome.code, outcome.of_level("ok").len()),
        (Some(0), 6),
        "{:#?}",
        outcome.checks
    );
    outcome.tells("ok", &["1 member: a; a leads"]);

    member.answers(Answer::Json(200, body("replica")));
    let outcome = examine(None, &["--patroni", &url]).await;
    outcome.fails_alone(&[
        "a, REST API",
        "not primary, running",
        "holds the lock: clients are held",
    ]);
}
