//! Operators' commands through the admin port (hold, release, cut): authentication, their effect on clients and
//! sessions, and their log lines.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::fake_cluster::{FakeCluster, Product, Session, eventually};
use super::support::within;

const TOKEN: &str = "correct-horse-battery-staple";

/// A pgnorth in front of a fake cluster, with a token for operators.
struct Setup {
    cluster: FakeCluster,
    product: Product,
    _folder: TempDir,
    file: PathBuf,
}

impl Setup {
    async fn start(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let cluster = FakeCluster::start(20).await;
        let option = format!("--admin-token-file={}", file.display());
        let product = Product::start(&cluster, &[&[option.as_str()], flags].concat()).await;
        product.decides("route", Some("a"), "").await;
        Self {
            cluster,
            product,
            _folder: folder,
            file,
        }
    }

    async fn command(&self, path: &str) -> (u16, String) {
        command(&self.product, "POST", path, Some(&format!("Bearer {TOKEN}"))).await
    }

    /// Sends a command that must be applied, and returns its answer.
    async fn applied(&self, path: &str) -> Value {
        let (status, body) = self.command(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn metric(&self, line: &str) {
        eventually(line, async || {
            let (_, metrics) = self.product.page("/metrics").await;
            metrics.lines().any(|found| found == line).then_some(())
        })
        .await;
    }
}

/// Runs the command; returns exit status, stdout and stderr.
async fn run(arguments: &[&str], admin: &str, token_file: &str) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .env("PGNORTH_ADMIN", admin)
        .env("PGNORTH_ADMIN_TOKEN_FILE", token_file)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = within("the command ends", run).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn command(product: &Product, method: &str, path: &str, authorization: Option<&str>) -> (u16, String) {
    let authorization = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    let more = format!("{authorization}Content-Length: 0\r\n");
    product.request(method, path, &more).await
}

/// Fails if a member answers, now or a moment later.
async fn still_waits(client: &mut TcpStream) {
    let mut byte = [0];
    let answer = tokio::time::timeout(Duration::from_millis(200), client.read(&mut byte)).await;
    assert!(answer.is_err(), "an answer: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tokens_holder_may_send_commands() {
    let setup = Setup::start(&[]).await;
    let mut session = setup.product.session().await;
    for path in ["/hold", "/release", "/sessions/cut"] {
        for (authorization, status, words) in [
            (None, 401, "needs the token"),
            (Some("Bearer wrong-horse-battery-staple"), 401, "not the token"),
            (Some("Bearer correct-horse-battery-stapl"), 401, "not the token"),
            (Some("Bearer "), 401, "needs the token"),
            (Some("Basic Y29ycmVjdC1ob3JzZQ=="), 401, "needs the token"),
            (Some(TOKEN), 401, "needs the token"),
        ] {
            let (answered, body) = command(&setup.product, "POST", path, authorization).await;
            assert_eq!(answered, status, "{path} {authorization:?}: {body}");
            assert!(body.contains(words), "{path} {authorization:?}: {body}");
        }
        let (status, body) = command(&setup.product, "GET", path, Some(&format!("Bearer {TOKEN}"))).await;
        assert_eq!((status, body.as_str()), (405, "send commands with POST\n"), "{path}");
    }
    session.lives().await;
    setup.product.decides("route", Some("a"), "").await;
    setup
        .product
        .tells("WARN", &["operator command rejected: the request has no bearer token"])
        .await;
    setup
        .product
        .tells("WARN", &["operator command rejected: the request has a wrong token"])
        .await;

    // A changed Secret counts at once.
    std::fs::write(&setup.file, "another-horse-battery-staple").unwrap();
    assert_eq!(setup.command("/hold").await.0, 401);
    std::fs::write(&setup.file, "short").unwrap();
    assert_eq!(setup.command("/hold").await.0, 503);
    setup
        .product
        .tells("WARN", &["operator command rejected: the token file cannot be used"])
        .await;
    std::fs::remove_file(&setup.file).unwrap();
    assert_eq!(setup.command("/hold").await.0, 503);
    std::fs::write(&setup.file, TOKEN).unwrap();
    setup.applied("/hold").await;
    for secret in [TOKEN, "wrong-horse", "another-horse"] {
        setup.product.keeps_secret(secret).await;
        assert!(!setup.product.page("/status").await.1.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_commands_are_off() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    let (status, body) = command(&product, "POST", "/sessions/cut", Some("Bearer anything")).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("--admin-token-file"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_sessions_and_holds_clients_until_it_is_released() {
    let setup = Setup::start(&[]).await;
    let mut session = setup.product.session().await;
    let answer = setup.applied("/hold?for=5m").await;
    assert_eq!(answer["held"], true);
    setup
        .product
        .decides("hold", Some("a"), "held by an operator since 20")
        .await;
    let mut client = setup.product.client().await;
    eventually("the client is held", async || {
        let (_, status) = setup.product.page("/status").await;
        let status: Value = serde_json::from_str(&status).unwrap();
        (status["sessions"]["held"] == 1).then_some(())
    })
    .await;
    still_waits(&mut client).await;
    session.lives().await;
    let (ready, text) = setup.product.page("/readyz").await;
    assert_eq!(ready, 200, "a client is better held than refused");
    assert!(
        text.starts_with("ready; new clients are held by an operator since "),
        "{text}"
    );
    setup.metric("pgnorth_held_by_operator 1").await;
    setup.metric("pgnorth_routing 0").await;

    let released = setup.applied("/release").await;
    assert_eq!(released, json!({"held": false, "was_held": true}));
    assert_eq!(Session::of(client).await.member, "a");
    session.lives().await;
    setup.metric("pgnorth_held_by_operator 0").await;
    assert_eq!(setup.product.page("/readyz").await.1, "ready\n");
    // There was no change of leader and no fault.
    assert_eq!(setup.product.page("/failovers").await.1, "[]\n");
    setup.metric("pgnorth_leader_changes_total 0").await;
    setup.metric("pgnorth_failover_seconds_count{phase=\"total\"} 0").await;
    let again = setup.applied("/release").await;
    assert_eq!(again, json!({"held": false, "was_held": false}));

    let by = |words: &str| {
        let line = setup.product.events().into_iter().find(|event| {
            let message = event["fields"]["message"].as_str().unwrap_or_default();
            message.contains(words)
        });
        let line = line.unwrap_or_else(|| panic!("no line: {words}"));
        assert!(
            line["fields"]["by"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
        line
    };
    assert_eq!(by("an operator holds new clients")["fields"]["for"], "5m");
    assert_eq!(by("an operator releases new clients")["fields"]["held"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_without_a_release_expires() {
    let setup = Setup::start(&[]).await;
    setup.applied("/hold?for=1s").await;
    let client = setup.product.client().await;
    assert_eq!(Session::of(client).await.member, "a");
    setup
        .product
        .tells("INFO", &["the operator's hold has expired without a release"])
        .await;
    setup
        .product
        .decides("route", Some("a"), "a holds the leader lock")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_client_is_refused_at_its_deadline_with_the_reason() {
    let setup = Setup::start(&["--hold", "1s"]).await;
    setup.applied("/hold").await;
    let mut client = TcpStream::connect(setup.product.address).await.unwrap();
    // A startup packet of protocol 3.0, without parameters.
    client.write_all(&[0, 0, 0, 9, 0, 3, 0, 0, 0]).await.unwrap();
    let mut answer = Vec::new();
    within("the refusal", client.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("57P03") && answer.contains("held by an operator since"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_reaches_the_primary_once_a_hold_has_been_answered() {
    let setup = Setup::start(&[]).await;
    setup.product.decides("route", Some("a"), "").await;
    for round in 0..50 {
        setup.applied("/hold").await;
        let client = setup.product.client().await;
        setup.metric("pgnorth_sessions{state=\"held\"} 1").await;
        assert_eq!(setup.cluster.a.visits(), round, "it came after the answer");
        setup.applied("/release").await;
        assert_eq!(Session::of(client).await.member, "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_moves_during_a_hold_and_no_session_stays_with_the_old_primary() {
    let setup = Setup::start(&[]).await;
    let session = setup.product.session().await;
    setup.applied("/hold?for=5m").await;
    setup.product.decides("hold", Some("a"), "held by an operator").await;
    let mut client = setup.product.client().await;
    setup.cluster.b.is_being_promoted();
    setup.cluster.lock_moves_to("b");
    session.ends().await;
    setup.product.decides("hold", None, "also held by an operator").await;
    setup.cluster.b.is_primary(2);
    setup.product.decides("hold", Some("b"), "held by an operator").await;
    still_waits(&mut client).await;
    assert_eq!((setup.cluster.a.visits(), setup.cluster.b.visits()), (1, 0));
    // The change is reported when it happens, not when the operator releases the clients.
    setup.metric("pgnorth_leader_changes_total 1").await;
    setup
        .product
        .tells("INFO", &["leader changed; new clients stay held"])
        .await;
    setup.applied("/release").await;
    assert_eq!(Session::of(client).await.member, "b");
    let (_, failovers) = setup.product.page("/failovers").await;
    let failovers: Value = serde_json::from_str(&failovers).unwrap();
    assert_eq!(failovers.as_array().unwrap().len(), 1, "{failovers}");
    assert_eq!((&failovers[0]["from"], &failovers[0]["to"]), (&json!("a"), &json!("b")));
    assert_eq!(failovers[0]["clients_held"], 0, "they waited for the operator");
    setup.metric("pgnorth_leader_changes_total 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_expires_during_a_hold_is_fenced() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let cluster = FakeCluster::start(3).await;
    let option = format!("--admin-token-file={}", file.display());
    let product = Product::start(&cluster, &[&option]).await;
    let session = product.session().await;
    let (status, _) = command(&product, "POST", "/hold", Some(&format!("Bearer {TOKEN}"))).await;
    assert_eq!(status, 200);
    cluster.freeze();
    session.ends().await;
    product.decides("fence", None, "also held by an operator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_the_open_sessions_and_later_clients_are_served() {
    let setup = Setup::start(&["--log", "info,pgnorth::proxy=debug"]).await;
    let sessions = [setup.product.session().await, setup.product.session().await];
    // A member without sessions.
    let nobody = setup.applied("/sessions/cut?member=b").await;
    assert_eq!((&nobody["sessions"], &nobody["member"]), (&json!(0), &json!("b")));
    for (path, words) in [
        (
            "/sessions/cut?member=c",
            "no member has this name; the members are a, b",
        ),
        (
            "/sessions/cut?memeber=a",
            "unknown parameter; /sessions/cut accepts only ?member=",
        ),
        ("/sessions/cut?member=", "?member= is empty"),
    ] {
        let (status, body) = setup.command(path).await;
        assert!(
            matches!(status, 400 | 404) && body.contains(words),
            "{path}: {status} {body}"
        );
    }
    let [mut first, mut second] = sessions;
    first.lives().await;
    second.lives().await;

    let cut = setup.applied("/sessions/cut?member=a").await;
    assert_eq!((&cut["sessions"], &cut["member"]), (&json!(2), &json!("a")));
    first.ends().await;
    second.ends().await;
    let third = setup.product.session().await;
    assert_eq!(third.member, "a");
    let all = setup.applied("/sessions/cut").await;
    assert_eq!((&all["sessions"], &all["member"]), (&json!(1), &Value::Null));
    third.ends().await;
    setup
        .metric("pgnorth_sessions_ended_total{ending=\"cut_by_operator\"} 3")
        .await;
    setup
        .metric("pgnorth_sessions_ended_total{ending=\"leader_changed\"} 0")
        .await;
    setup.product.decides("route", Some("a"), "").await;
    assert_eq!(setup.product.page("/failovers").await.1, "[]\n");

    let closed: Vec<_> = setup
        .product
        .events()
        .into_iter()
        .filter(|event| event["fields"]["message"] == "the sessions that an operator ended are closed")
        .map(|event| (event["fields"]["member"].clone(), event["fields"]["sessions"].clone()))
        .collect();
    let expected = [("b", 0), ("a", 2), ("every member", 1)].map(|(member, sessions)| (json!(member), json!(sessions)));
    assert_eq!(closed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leaders_sessions_that_may_finish_can_be_cut_alone() {
    let setup = Setup::start(&["--failover-drain", "1h"]).await;
    let mut old = setup.product.session().await;
    setup.cluster.annotate("leader", "");
    setup
        .product
        .decides("hold", None, "the leader lock was released")
        .await;
    setup.cluster.b.is_primary(2);
    setup.cluster.lock_moves_to("b");
    let mut new = setup.product.session().await;
    assert_eq!(new.member, "b");
    old.lives().await;
    let cut = setup.applied("/sessions/cut?member=a").await;
    assert_eq!(cut["sessions"], 1);
    old.ends().await;
    new.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subcommands_send_commands_and_status_shows_a_hold() {
    let setup = Setup::start(&[]).await;
    let (admin, file) = (setup.product.admin.to_string(), setup.file.display().to_string());
    let session = setup.product.session().await;
    let (code, output, _) = run(&["hold", "--for", "5m"], &admin, &file).await;
    assert_eq!(code, Some(0));
    assert!(output.starts_with("{\"held\":true,\"until\":\"20"), "{output}");
    setup.product.decides("hold", Some("a"), "held by an operator").await;
    let (code, output, _) = run(&["status"], &admin, &file).await;
    assert_eq!(code, Some(1));
    assert!(
        output.starts_with("HOLDING for ") && output.contains("because   held by an operator since 20"),
        "{output}"
    );
    assert!(output.contains("leader    a at "), "{output}");

    let (code, output, _) = run(&["cut", "--member", "a"], &admin, &file).await;
    assert_eq!(code, Some(0));
    assert!(output.starts_with("{\"member\":\"a\",\"sessions\":1,"), "{output}");
    session.ends().await;
    let (code, output, error) = run(&["cut", "--member", "no such&one"], &admin, &file).await;
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert_eq!(error, "pgnorth: no member has this name; the members are a, b\n");
    let (code, output, _) = run(&["release"], &admin, &file).await;
    assert_eq!(
        (code, output.as_str()),
        (Some(0), "{\"held\":false,\"was_held\":true}\n")
    );
    setup.product.decides("route", Some("a"), "").await;

    let wrong = setup.file.with_file_name("wrong");
    std::fs::write(&wrong, "wrong-horse-battery-staple").unwrap();
    let (code, _, error) = run(&["hold"], &admin, &wrong.display().to_string()).await;
    assert_eq!(
        (code, error.as_str()),
        (Some(1), "pgnorth: this is not the token of --admin-token-file\n")
    );
    let (code, _, error) = run(&["hold"], &admin, "/nowhere").await;
    assert_eq!(
        (code, error.as_str()),
        (Some(1), "pgnorth: /nowhere: No such file or directory (os error 2)\n")
    );
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, _, error) = run(&["hold"], &closed.to_string(), &file).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("is this pgnorth's admin port"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_applied_while_nothing_is_known_yet() {
    let setup = Setup::start(&[]).await;
    let cluster = FakeCluster::start(20).await;
    for kind in ["endpoints", "configmaps", "pods"] {
        cluster.api.forbid(kind);
    }
    let option = format!("--admin-token-file={}", setup.file.display());
    let product = Product::start(&cluster, &[&option]).await;
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(command(&product, "POST", "/hold", Some(&bearer)).await.0, 200);
    product.decides("hold", None, "also held by an operator").await;
    let (ready, text) = product.page("/readyz").await;
    assert_eq!((ready, text.matches("held by an operator").count()), (503, 1), "{text}");
    let (status, text) = command(&product, "POST", "/sessions/cut?member=a", Some(&bearer)).await;
    assert_eq!(
        (status, text.as_str()),
        (404, "no member has this name; no member is known yet\n")
    );
}
