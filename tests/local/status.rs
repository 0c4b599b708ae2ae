//! The status for people: `/status`, its events, the page and `pgnorth status`, of a real binary in front of fake
//! members and a fake API server.

use std::process::Stdio;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::fake_cluster::{FakeCluster, Product, eventually};
use super::support::within;

/// A stream of events.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens a stream of events; its head is read if the status is 200. Otherwise returns the status; `None` if the
    /// connection was closed without an answer.
    pub async fn open(admin: std::net::SocketAddr) -> Result<Self, Option<u16>> {
        let mut stream = within("the admin port accepts", TcpStream::connect(admin))
            .await
            .unwrap();
        // A small buffer, so that a client that stops reading is noticed early.
        SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
        let request = b"GET /status/events HTTP/1.1\r\nHost: admin\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut events = Self(BufReader::new(stream));
        let first = events.line().await.ok_or(None)?;
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut head = String::new();
        loop {
            match events.line().await.ok_or(None)?.as_str() {
                "" => break,
                line => head += &format!("{}\n", line.to_ascii_lowercase()),
            }
        }
        if status != 200 {
            return Err(Some(status));
        }
        assert!(head.contains("content-type: text/event-stream\n"), "{head}");
        assert!(head.contains("cache-control: no-store\n"), "{head}");
        Ok(events)
    }

    /// Returns a line without its end; `None` at the end of the stream.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = within("a line comes", self.0.read_line(&mut line)).await.unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Returns the next event's document; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Reads until an event fulfils the condition.
    pub async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        within(what, async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                if is_it(&event) {
                    return event;
                }
            }
        })
        .await
    }
}

async fn status(product: &Product) -> Value {
    let (code, body) = product.page("/status").await;
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

/// Runs `pgnorth status`; returns exit status, stdout and stderr.
async fn look(admin: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .args(["status", "--admin", admin])
        .args(flags)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("pgnorth status ends", run).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_these_fields_the_leader_and_the_reason() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    let mut session = product.session().await;
    session.lives().await;
    // Samples come once a second.
    let status = eventually("two samples of an open session", async || {
        let status = status(&product).await;
        let sessions = status["history"]["sessions"].as_array().unwrap();
        (sessions.len() > 1 && *sessions.last().unwrap() == 1).then_some(status)
    })
    .await;
    let fields = "at cluster commit failovers foreign history leader lock members paused readiness reason routes sessions since since_seconds sources \
        state state_seconds switchover trouble uptime_seconds version";
    assert_eq!(keys(&status), fields.split_whitespace().collect::<Vec<_>>());
    let leader = json!({"member": "a", "address": cluster.a.postgres.to_string(), "timeline": 1});
    assert_eq!((&status["state"], &status["leader"]), (&json!("route"), &leader));
    assert_eq!(
        status["reason"],
        "a holds the leader lock and says that it is a running primary"
    );
    assert_eq!(
        (&status["lock"]["member"], &status["lock"]["ttl_seconds"]),
        (&json!("a"), &json!(20.0))
    );
    assert!(status["lock"]["age_seconds"].as_f64().unwrap() < 20.0);
    assert_eq!(
        (&status["readiness"], &status["paused"]),
        (&json!("ready"), &json!(false))
    );
    let [a, b] = &status["members"].as_array().unwrap()[..] else {
        panic!("{status}")
    };
    let fields = "address heard_from heard_seconds holds_lock lag_bytes leads name role silent state timeline";
    assert_eq!(keys(a), fields.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        (&a["name"], &a["role"], &a["state"]),
        (&json!("a"), &json!("primary"), &json!("running"))
    );
    assert_eq!(
        (&a["leads"], &a["holds_lock"], &a["heard_from"]),
        (&json!(true), &json!(true), &json!("rest"))
    );
    assert_eq!(
        (&b["name"], &b["role"], &b["leads"]),
        (&json!("b"), &json!("replica"), &json!(false))
    );
    assert_eq!((&b["heard_from"], &b["lag_bytes"]), (&json!("pod"), &json!(4096)));
    let up: Vec<_> = status["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| (&source["name"], &source["up"]))
        .collect();
    assert_eq!(
        up,
        [(&json!("kubernetes"), &json!(true)), (&json!("patroni"), &json!(true))]
    );
    let sessions = json!({"held": 0, "dialling": 0, "forwarding": 1, "max": status["sessions"]["max"], "oldest_wait_seconds": null});
    assert_eq!(status["sessions"], sessions);
    assert_eq!(keys(&status["history"]), ["held", "sessions", "to_client", "to_leader"]);
    assert_eq!((&status["failovers"], &status["trouble"]), (&json!([]), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_is_on_the_status_with_its_first_sign_and_the_held_clients() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    let mut events = Events::open(product.admin).await.unwrap();
    let first = events.next().await.unwrap();
    assert_eq!(first["leader"]["member"], "a", "the present comes first");

    cluster.b.is_being_promoted();
    cluster.lock_moves_to("b");
    // An earlier client would still get a session with a.
    product.decides("hold", None, "b is not ready for writes").await;
    let _client = product.client().await;
    let held = events
        .until("a client is held", |event| event["sessions"]["held"] == 1)
        .await;
    assert_eq!((&held["state"], &held["leader"]), (&json!("hold"), &Value::Null));
    assert_eq!(
        (&held["trouble"]["holding"], &held["trouble"]["lock_moved_to"]),
        (&json!(true), &json!("b"))
    );
    assert!(held["sessions"]["oldest_wait_seconds"].is_number(), "{held}");

    cluster.b.is_primary(2);
    let done = events
        .until("b leads, and the client is through", |event| {
            event["leader"]["member"] == "b" && event["sessions"]["forwarding"] == 1
        })
        .await;
    assert_eq!((&done["state"], &done["trouble"]), (&json!("route"), &Value::Null));
    assert_eq!(done["sessions"]["oldest_wait_seconds"], Value::Null);
    let failover = &done["failovers"][0];
    assert_eq!((&failover["from"], &failover["to"]), (&json!("a"), &json!("b")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stops_answering_is_shown_as_unreachable() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    cluster.a.answers(super::fake_patroni::Answer::Reset);
    let mut events = Events::open(product.admin).await.unwrap();
    let silent = events
        .until("a is silent", |event| event["members"][0]["silent"].is_string())
        .await;
    assert_eq!(
        (&silent["state"], &silent["sources"][1]["up"]),
        (&json!("route"), &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ends_with_0_while_it_routes_1_while_it_holds_and_2_without_contact() {
    let cluster = FakeCluster::start(20).await;
    let mut product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    let admin = product.admin.to_string();

    let (code, text, said) = look(&admin, &[]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{text}");
    assert!(text.starts_with("ROUTING for "), "{text}");
    for part in [
        "because   a holds the leader lock and says that it is a running primary\n",
        &format!("leader    a at {}, timeline 1, for ", cluster.a.postgres),
        "left, held by a\n",
        "sessions  0 forwarding, 0 dialling, 0 held (at most ",
        "source    kubernetes is up: ",
        "\n*  a       primary  running  1         -       ",
        "\n   b       replica  running  1         4.1 kB  status in the DCS, watched; unchanged for ",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colour but on a terminal: {text}");

    let (code, text, _) = look(&admin, &["--format", "json"]).await;
    assert_eq!((code, text.lines().count()), (Some(0), 1));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(keys(&document), keys(&status(&product).await));

    cluster.lock_moves_to("b");
    product.decides("hold", None, "b is not ready for writes").await;
    let _client = product.client().await;
    eventually("the client is held", async || {
        (status(&product).await["sessions"]["held"] == 1).then_some(())
    })
    .await;
    let (code, text, _) = look(&admin, &[]).await;
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "HOLDING for ",
        "leader    none for ",
        "1 held, the oldest for ",
        "trouble   first sign ",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }

    product.ends();
    let (code, text, said) = look(&admin, &[]).await;
    assert_eq!((code, text.as_str()), (Some(2), ""));
    assert!(said.starts_with(&format!("NO CONTACT  {admin}: ")), "{said}");
    assert!(said.contains("--admin") && said.contains("PGNORTH_ADMIN"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_server_is_no_contact() {
    let cluster = FakeCluster::start(20).await;
    let (code, text, said) = look(&cluster.a.rest.to_string(), &[]).await;
    assert_eq!((code, text.as_str()), (Some(2), ""));
    assert!(said.contains("the answer is not a pgnorth status"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_with_watch_shows_changes_reconnects_and_ends_with_its_reader() {
    let cluster = FakeCluster::start(20).await;
    let mut product = Product::start(&cluster, &[]).await;
    product.decides("route", Some("a"), "").await;
    let mut looking = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .args([
            "status",
            "--watch",
            "--format=json",
            "--admin",
            &product.admin.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    let mut until = async |member: Value| loop {
        let line = within("a line comes", lines.next_line()).await.unwrap().unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        if document["leader"]["member"] == member {
            return;
        }
    };
    until(json!("a")).await;
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");
    until(json!("b")).await;
    product.ends();
    let mut said = String::new();
    let mut stderr = BufReader::new(looking.stderr.take().unwrap());
    within("it says so", stderr.read_line(&mut said)).await.unwrap();
    assert!(said.starts_with("NO CONTACT"), "{said}");
    // It retries, and reports each attempt.
    said.clear();
    within("it tries again", stderr.read_line(&mut said)).await.unwrap();
    assert!(said.starts_with("NO CONTACT"), "{said}");
    drop(stderr);
    let ended = within("the reader is gone", looking.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(2), "the state shown last");
}

/// Open streams do not delay a shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn open_status_streams_do_not_delay_the_shutdown() {
    let cluster = FakeCluster::start(20).await;
    let mut product = Product::start(&cluster, &["--lame-duck", "0s", "--drain", "0s"]).await;
    product.decides("route", Some("a"), "").await;
    let mut events = Events::open(product.admin).await.unwrap();
    product.is_asked_to_end();
    within("the stream ends", async { while events.next().await.is_some() {} }).await;
    let mut rest = Vec::new();
    let _ = within("the connection ends", events.0.read_to_end(&mut rest)).await;
    assert_eq!(product.ended().await, Some(0));
}
