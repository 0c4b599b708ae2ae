//! The admin listener on the level of raw bytes: the answer of each path, and the treatment of clients that misbehave.

#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgnorth::admin::{Admin, Facts, Hosts, Limits};
use pgnorth::leader::{Address, RoutingState, Server};
use pgnorth::liveness::Liveness;
use pgnorth::metrics::Metrics;
use pgnorth::readiness::ReadinessHandle;
use pgnorth::recorder::Recorder;
use pgnorth::slot::RouteSlot;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::status::Events;

/// Deadline that only a failing test reaches.
const DEADLINE: Duration = Duration::from_secs(10);

struct Served {
    address: SocketAddr,
    facts: Arc<Facts>,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    fn start(limits: Limits) -> Self {
        let admin = Admin::with_limits("127.0.0.1:0".parse().unwrap(), limits).unwrap();
        let address = admin.local_addr().unwrap();
        let facts = Arc::new(Facts {
            slot: Arc::new(RouteSlot::new("no source has answered yet")),
            routes: Vec::new(),
            liveness: Liveness::default(),
            hosts: Hosts::new(&["pg.example.com".to_owned()], Some("db1.example.net")),
            readiness: ReadinessHandle::starting("no source has answered yet"),
            metrics: Arc::new(Metrics::new()),
            recorder: Arc::new(Recorder::new(Arc::new(Metrics::new()))),
            wait_queue: Arc::default(),
            view: watch::Sender::default().subscribe(),
            operators: None,
            log_limiter: Default::default(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin.run(facts.clone(), stop.clone()));
        Self {
            address,
            facts,
            stop,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends, and reads until the other side closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        until_closed(&mut stream).await
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::parse(&self.say(request.as_bytes()).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Returns the bytes that arrive until the other side closes or resets.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut read)).await;
    match end.expect("the connection is closed before the deadline") {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(read).unwrap(),
    }
}

fn leader(member: &str, timeline: Option<u32>) -> Server {
    Server {
        member: member.into(),
        address: Address::new("fd00::7", 5432).unwrap(),
        timeline,
    }
}

/// A regression test: the page's clock once kept the snapshot, and with it the epoch, for a quarter of a second.
#[tokio::test]
async fn the_page_does_not_make_the_last_session_of_an_epoch_seem_to_close_late() {
    let limits = Limits {
        pace: Duration::from_secs(3600),
        ..Limits::default()
    };
    let served = Served::start(limits);
    let slot = &served.facts.slot;
    assert!(
        slot.publish(RoutingState::Route(leader("pg-0", None)), String::new())
            .is_none()
    );
    // It waits for the next change now.
    assert_eq!(served.get("/livez").await.status, 200);
    let cut = slot.publish(RoutingState::Fence, String::new()).unwrap();
    let done = timeout(DEADLINE, cut.done()).await;
    assert!(done.is_ok(), "something holds on to a epoch without sessions");
}

#[tokio::test]
async fn livez_answers_whatever_the_state() {
    let served = Served::start(Limits::default());
    let answer = served.get("/livez").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn livez_fails_while_a_thread_is_stuck() {
    let served = Served::start(Limits::default());
    let liveness = &served.facts.liveness;
    let heartbeat = liveness.watch("worker-1");
    let livez = async || {
        let answer = served.get("/livez").await;
        (answer.status, answer.body)
    };
    assert_eq!(livez().await.0, 200);
    for _ in 0..10 {
        liveness.tick();
    }
    assert_eq!(
        livez().await,
        (503, "the thread worker-1 has not run for 10 s\n".into())
    );
    heartbeat.record();
    liveness.tick();
    assert_eq!(livez().await.0, 200);
}

/// DNS rebinding: evil.example has a name that points to the admin port, and the page's script could read the answers.
#[tokio::test]
async fn a_web_page_reads_nothing_under_a_name_of_its_own() {
    let served = Served::start(Limits::default());
    let ask = async |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Answer::parse(&served.say(request.as_bytes()).await)
    };
    let all = [
        "/",
        "/leader",
        "/status",
        "/status/events",
        "/failovers",
        "/metrics",
        "/hold",
        "/nonsense",
    ];
    for path in all {
        let refused = ask(path, "rebound.evil.example:8080").await;
        assert_eq!(refused.status, 421, "{path}");
        assert!(
            refused.body.contains("--admin-host rebound.evil.example "),
            "{}",
            refused.body
        );
    }
    for path in ["/", "/leader", "/status", "/metrics"] {
        for host in [
            "127.0.0.1:8080",
            "[::1]",
            "pgnorth.db.svc:8080",
            "pg.example.com",
            "db1.example.net:8080",
            "",
            "x",
        ] {
            assert_ne!(ask(path, host).await.status, 421, "{path} of {host}");
        }
    }
    for probe in ["/livez", "/readyz"] {
        assert_ne!(ask(probe, "rebound.evil.example").await.status, 421, "{probe}");
    }
    let absolute = "GET http://evil.example/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(Answer::parse(&served.say(absolute.as_bytes()).await).status, 421);
    let two = "GET /status HTTP/1.1\r\nHost: x\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_ne!(Answer::parse(&served.say(two.as_bytes()).await).status, 200);
    // Before HTTP/1.1 a request need not name a host; every browser does.
    let none = "GET /leader HTTP/1.0\r\n\r\n";
    assert_eq!(Answer::parse(&served.say(none.as_bytes()).await).status, 503);
}

#[tokio::test]
async fn readyz_has_the_status_and_the_reason_of_each_readiness() {
    let served = Served::start(Limits::default());
    let readyz = async || {
        let answer = served.get("/readyz").await;
        (answer.status, answer.body)
    };
    assert_eq!(readyz().await, (503, "starting: no source has answered yet\n".into()));
    served.facts.readiness.ready();
    assert_eq!(readyz().await, (200, "ready\n".into()));
    served.facts.readiness.shutting_down();
    assert_eq!(readyz().await, (503, "shutting down\n".into()));
}

#[tokio::test]
async fn the_leader_page_has_member_time_and_reason() {
    let served = Served::start(Limits::default());
    let slot = &served.facts.slot;
    let asked = async || {
        let answer = served.get("/leader").await;
        let mut page = answer.json();
        let since = page.as_object_mut().unwrap().remove("since").unwrap();
        let since: jiff::Timestamp = since.as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(since).as_secs() < 60, "{since}");
        (answer.status, page)
    };
    let nobody = |state: &str, reason: &str| json!({"member": null, "address": null, "timeline": null, "state": state, "reason": reason});
    assert_eq!(asked().await, (503, nobody("hold", "no source has answered yet")));

    slot.publish(
        RoutingState::Route(leader("pg-0", Some(3))),
        "pg-0 holds the lock".into(),
    );
    let mut page = json!({"member": "pg-0", "address": "[fd00::7]:5432", "timeline": 3, "state": "route", "reason": "pg-0 holds the lock"});
    assert_eq!(asked().await, (200, page.clone()));

    slot.publish(RoutingState::Hold(Some(leader("pg-0", None))), "pg-0 \"stops\"".into());
    page["timeline"] = Value::Null;
    page["state"] = "hold".into();
    page["reason"] = "pg-0 \"stops\"".into();
    assert_eq!(asked().await, (503, page));

    slot.publish(RoutingState::Fence, "the lock expired".into());
    assert_eq!(asked().await, (503, nobody("fence", "the lock expired")));
}

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let served = Served::start(Limits::default());
    let answer = served.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        answer.head
    );
    assert!(
        answer.body.contains("# TYPE pgnorth_sessions gauge\n"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_404_names_every_path() {
    let served = Served::start(Limits::default());
    for (path, status) in [("/nonsense", 404), ("/livez/", 404), ("*", 404)] {
        let method = if path == "*" { "OPTIONS" } else { "GET" };
        let answer = served.ask(method, path).await;
        assert_eq!(answer.status, status, "{path}");
        for known in [
            "/",
            "/livez",
            "/readyz",
            "/leader",
            "/status",
            "/status/events",
            "/failovers",
            "/metrics",
        ] {
            assert!(answer.body.contains(&format!("\n{known} ")), "{path}: {}", answer.body);
        }
    }
    assert_eq!(served.get("/livez?verbose").await.status, 200, "a query is ignored");
}

#[tokio::test]
async fn another_method_is_refused_with_those_allowed() {
    let served = Served::start(Limits::default());
    for method in ["POST", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = served.ask(method, "/leader").await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("\r\nallow: get, head"), "{}", answer.head);
    }
}

#[tokio::test]
async fn head_answers_as_get_does_without_the_body() {
    let served = Served::start(Limits::default());
    for path in ["/", "/livez", "/readyz", "/leader", "/metrics", "/nonsense"] {
        let (get, head) = (served.get(path).await, served.ask("HEAD", path).await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        assert!(
            head.head.contains(&format!("content-length: {}", get.body.len())),
            "{path}: {}",
            head.head
        );
    }
}

#[tokio::test]
async fn one_connection_may_send_several_requests_and_pipeline_them() {
    let served = Served::start(Limits::default());
    let text = served
        .say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
}

#[tokio::test]
async fn a_client_that_closed_its_side_still_gets_its_answer() {
    let served = Served::start(Limits::default());
    let mut stream = served.connect().await;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert!(until_closed(&mut stream).await.ends_with("ok\n"));
}

#[tokio::test]
async fn garbage_is_answered_400_or_closed_and_harms_no_other_client() {
    let served = Served::start(Limits::default());
    // The first bytes of a PostgreSQL client (SSLRequest), a TLS hello, noise, a request followed by noise, an unknown
    // version.
    for garbage in [
        &b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\xff\xfe\xfd\x00\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let text = served.say(garbage).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{garbage:?}: {text}");
    }
    let text = served
        .say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01garbage\r\n\r\n")
        .await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.contains("HTTP/1.1 400"),
        "{text}"
    );
    assert_eq!(served.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_body_is_neither_wanted_nor_read_without_end() {
    let served = Served::start(Limits::default());
    let mut stream = served.connect().await;
    stream
        .write_all(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        .await
        .unwrap();
    let flood = async { while stream.write_all(&[b'x'; 65536]).await.is_ok() {} };
    timeout(DEADLINE, flood)
        .await
        .expect("the server closes before it has read a gigabyte");
    assert_eq!(served.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = Served::start(Limits::default());
    let request = |size: usize| {
        format!(
            "GET /livez HTTP/1.1\r\nConnection: close\r\nX: {}\r\n\r\n",
            "x".repeat(size)
        )
    };
    assert!(
        served
            .say(request(15 * 1024).as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        served
            .say(request(17 * 1024).as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    let mut endless = served.connect().await;
    let flood = async { while endless.write_all(&[b'x'; 4096]).await.is_ok() {} };
    timeout(DEADLINE, flood).await.expect("a head without end is cut off");
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let head_time = Duration::from_millis(200);
    let served = Served::start(Limits {
        head_time,
        ..Limits::default()
    });
    for sent in [
        &b""[..],
        b"GET /livez HTT",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET ",
    ] {
        let start = Instant::now();
        served.say(sent).await;
        assert!(start.elapsed() >= head_time, "{sent:?} was given its time");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_after_its_lifetime() {
    let limits = Limits {
        lifetime: Duration::from_millis(200),
        farewell: Duration::from_millis(100),
        ..Limits::default()
    };
    let served = Served::start(limits);
    let mut stream = served.connect().await;
    let flood = async {
        while stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .is_ok()
        {}
    };
    timeout(DEADLINE, flood)
        .await
        .expect("unread answers are not written for ever");
    assert_eq!(served.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_crowd_of_idle_connections_keeps_no_probe_out() {
    // Only the limit can close them in time.
    let limits = Limits {
        connections: 8,
        head_time: Duration::from_secs(3600),
        lifetime: Duration::from_secs(3600),
        ..Limits::default()
    };
    let served = Served::start(limits);
    let mut crowd = Vec::new();
    for _ in 0..108 {
        crowd.push(served.connect().await);
    }
    // It is accepted after all the others.
    assert_eq!(served.get("/livez").await.status, 200);
    for early in &mut crowd[..100] {
        assert_eq!(until_closed(early).await, "", "the oldest were closed");
    }
    let late = crowd.last_mut().unwrap();
    late.write_all(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(until_closed(late).await.ends_with("ok\n"), "the youngest were kept");
}

#[tokio::test]
async fn stop_closes_the_listener_and_idle_connections() {
    let served = Served::start(Limits::default());
    let mut idle = served.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut silent = served.connect().await;
    assert_eq!(served.get("/livez").await.status, 200);
    served.stop.cancel();
    let ended = timeout(DEADLINE, served.task).await.expect("it ends in time");
    ended.unwrap().unwrap();
    assert!(until_closed(&mut idle).await.ends_with("ok\n"));
    assert_eq!(until_closed(&mut silent).await, "");
    TcpStream::connect(served.address).await.unwrap_err();
}

#[tokio::test]
async fn a_wildcard_address_accepts_ipv4_and_ipv6() {
    let admin = Admin::bind("[::]:0".parse().unwrap()).unwrap();
    let port = admin.local_addr().unwrap().port();
    for host in ["127.0.0.1", "::1"] {
        TcpStream::connect((host, port))
            .await
            .unwrap_or_else(|error| panic!("{host}: {error}"));
    }
}

#[test]
fn an_address_that_is_taken_is_named_with_the_fix() {
    let first = Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = Admin::bind(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    for part in [&address.to_string(), "another process", "--admin", "PGNORTH_ADMIN"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

/// Returns the parts of the page between this tag and its end.
fn inside(page: &str, tag: &str) -> String {
    let (_, rest) = page.split_once(tag).unwrap_or_else(|| panic!("the page has {tag}"));
    let end = format!("</{}>", tag[1..].split([' ', '>']).next().unwrap());
    rest.split_once(&end).unwrap().0.to_owned()
}

#[tokio::test]
async fn the_page_is_complete_fetches_nothing_from_elsewhere_and_runs_only_its_own_script() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let served = Served::start(Limits::default());
    let Answer { status, head, body } = served.get("/").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    for foreign in [
        "http:",
        "https:",
        "//cdn",
        "@import",
        "url(",
        "src=",
        " style=",
        " onclick",
        "innerHTML",
        "eval(",
    ] {
        assert!(!body.contains(foreign), "{foreign} in the page");
    }
    // Every link, source and stream is relative, so that the page also works behind a proxy that adds a path.
    let quoted = |before: &str| -> Vec<String> {
        let parts = body.split(before).skip(1);
        parts
            .map(|rest| rest.split(['"', '\'']).next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(quoted("new EventSource('"), ["status/events"]);
    assert_eq!(quoted("fetch('"), ["status"]);
    for link in quoted("href=\"") {
        assert!(
            ["data:,", "status", "leader", "failovers", "metrics"].contains(&link.as_str()),
            "{link}"
        );
    }
    let raw = served
        .say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let policy = raw
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy: "))
        .unwrap();
    for (directive, tag) in [("style-src", "<style>"), ("script-src", "<script type=\"module\">")] {
        let hash = sha2::Sha256::digest(inside(&body, tag));
        let hash = format!(
            "{directive} 'sha256-{}';",
            base64::engine::general_purpose::STANDARD.encode(hash)
        );
        assert!(
            policy.contains(&hash),
            "the policy in admin/pages.rs should have\n{hash}\nbut is\n{policy}"
        );
    }
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        policy.contains("connect-src 'self';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
}

/// Opens a stream of events. A connection that is closed before its answer is opened again: a busy machine may need
/// longer for an answer than the short lifetimes of these tests.
async fn open_events(admin: SocketAddr) -> Result<Events, u16> {
    let answered = async {
        loop {
            match Events::open(admin).await {
                Ok(events) => return Ok(events),
                Err(Some(status)) => return Err(status),
                Err(None) => {}
            }
        }
    };
    timeout(6 * DEADLINE, answered).await.expect("an answer")
}

/// Returns a reason so long that one event each fills the kernel's buffers for a client that does not read.
fn long_reason(n: usize) -> String {
    format!("{n} {}", "because ".repeat(25_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stops_reading_is_closed_and_its_place_is_free() {
    let limits = Limits {
        viewers: 1,
        pace: Duration::from_millis(1),
        lifetime: Duration::from_millis(100),
        farewell: Duration::from_millis(100),
        stall: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = Served::start(limits);
    let mut reads_no_more = open_events(served.address).await.unwrap();
    reads_no_more.next().await.unwrap();
    let refused = open_events(served.address).await.err();
    assert_eq!(refused, Some(503), "the only place is taken");
    let flood = async {
        for n in 0.. {
            served.facts.slot.publish(RoutingState::Fence, long_reason(n));
            if open_events(served.address).await.is_ok() {
                return;
            }
        }
    };
    timeout(6 * DEADLINE, flood).await.expect("the place becomes free");
    drop(reads_no_more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_reads_may_exceed_the_lifetime_of_other_connections() {
    let limits = Limits {
        pace: Duration::from_millis(1),
        lifetime: Duration::from_millis(50),
        farewell: Duration::from_millis(50),
        stall: Duration::from_millis(500),
        ..Limits::default()
    };
    let served = Served::start(limits);
    let mut events = open_events(served.address).await.unwrap();
    // At least one event each second, for many times a connection's lifetime.
    for _ in 0..4 {
        let event = events.next().await.expect("the stream goes on");
        assert_eq!(event["state"], "hold");
    }
}

#[tokio::test]
async fn head_of_the_events_is_answered_at_once() {
    let served = Served::start(Limits::default());
    let answer = served.ask("HEAD", "/status/events").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(
        answer.head.contains("content-type: text/event-stream"),
        "{}",
        answer.head
    );
}
