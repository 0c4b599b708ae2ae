//! A fake member: a REST API with scripted answers, and a PostgreSQL that sends its name to every client that sends
//! something, and then echoes. It declines an SSLRequest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The cluster of most tests.
const SCOPE: &str = "pg";
const SYSTEM: &str = "7440000000000000000";

/// One member. It ends with the test's runtime.
pub struct FakeMember {
    pub name: &'static str,
    pub rest: SocketAddr,
    pub postgres: SocketAddr,
    scope: &'static str,
    system: &'static str,
    script: Arc<Mutex<Answer>>,
    listing: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicU32>,
    visitors: Arc<Mutex<Vec<SocketAddr>>>,
}

/// The REST API's reaction to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Status and body, as Patroni answers.
    Json(u16, Value),
    /// 200 with this body, which is not Patroni's JSON.
    Body(String),
    /// The body is shorter than its announced length, and the connection stays open.
    HalfBody(String),
    /// The connection stays open without an answer.
    Nothing,
    /// The connection is reset.
    Reset,
}

impl FakeMember {
    /// Starts a running replica on timeline 1 of the cluster `pg`.
    pub async fn start(name: &'static str) -> Self {
        Self::of(name, SCOPE, SYSTEM).await
    }

    /// Starts a running replica on timeline 1 of this scope and system identifier.
    pub async fn of(name: &'static str, scope: &'static str, system: &'static str) -> Self {
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = Self {
            name,
            rest: rest.local_addr().unwrap(),
            postgres: postgres.local_addr().unwrap(),
            scope,
            system,
            script: Arc::new(Mutex::new(report_of(scope, system, name, 503, "replica", 1))),
            listing: Arc::default(),
            asked: Arc::default(),
            visitors: Arc::default(),
        };
        let (script, listing, asked) = (member.script.clone(), member.listing.clone(), member.asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = rest.accept().await {
                let (script, listing, asked) = (script.clone(), listing.clone(), asked.clone());
                tokio::spawn(async move {
                    let (answer, listing) = (script.lock().unwrap().clone(), listing.lock().unwrap().clone());
                    let _ = respond(stream, answer, listing, &asked).await;
                });
            }
        });
        let visitors = member.visitors.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = postgres.accept().await {
                visitors.lock().unwrap().push(peer);
                tokio::spawn(talk(stream, name));
            }
        });
        member
    }

    /// Sets the REST API's answer from now on.
    pub fn answers(&self, answer: Answer) {
        *self.script.lock().unwrap() = answer;
    }

    /// Makes it hold the lock and accept writes.
    pub fn is_primary(&self, timeline: u32) {
        self.answers(self.report(200, "primary", timeline));
    }

    /// Makes it a replica without the lock.
    pub fn is_replica(&self, timeline: u32) {
        self.answers(self.report(503, "replica", timeline));
    }

    /// Makes it hold the lock without being promoted yet.
    pub fn is_being_promoted(&self) {
        self.answers(self.report(200, "replica", 1));
    }

    fn report(&self, status: u16, role: &str, timeline: u32) -> Answer {
        report_of(self.scope, self.system, self.name, status, role, timeline)
    }

    /// Makes `/cluster` list these members, with this one as the leader; `/config` has a ttl of 4 s.
    pub fn lists(&self, members: &[&Self]) {
        let row = |member: &&Self| {
            json!({
                "name": member.name, "role": if member.name == self.name { "leader" } else { "replica" },
                "state": "running", "api_url": format!("http://{}/patroni", member.rest),
                "host": "127.0.0.1", "port": member.postgres.port(), "timeline": 1,
            })
        };
        let rows: Vec<_> = members.iter().map(row).collect();
        *self.listing.lock().unwrap() = Some(json!({"members": rows, "scope": self.scope, "ttl": 4}));
    }

    /// Sets the ttl in `/config`; it lists members already.
    pub fn has_ttl(&self, seconds: u32) {
        let mut listing = self.listing.lock().unwrap();
        listing.as_mut().expect("it lists members")["ttl"] = json!(seconds);
    }

    /// Returns the number of complete requests to the REST API.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Returns the number of connections to PostgreSQL.
    pub fn visits(&self) -> u32 {
        u32::try_from(self.visitors().len()).unwrap()
    }

    /// Returns the clients' addresses, as PostgreSQL's client_addr and client_port would show them.
    pub fn visitors(&self) -> Vec<SocketAddr> {
        self.visitors.lock().unwrap().clone()
    }

    /// Returns the annotations of its pod.
    pub fn pod(&self, role: &str) -> Value {
        self.pod_with_conn_url(role, &format!("postgres://{}/postgres", self.postgres))
    }

    pub fn pod_with_conn_url(&self, role: &str, conn_url: &str) -> Value {
        // A replica is a page behind.
        let xlog_location = if role == "primary" { 67_112_960 } else { 67_108_864 };
        let status = json!({
            "conn_url": conn_url, "api_url": format!("http://{}/patroni", self.rest),
            "state": "running", "role": role, "version": "4.1.5", "timeline": 1,
            "xlog_location": xlog_location,
        });
        json!({"status": status.to_string()})
    }
}

/// Returns the answer to `GET /primary`.
pub fn report(name: &str, status: u16, role: &str, timeline: u32) -> Answer {
    report_of(SCOPE, SYSTEM, name, status, role, timeline)
}

/// Does the same for a member of this cluster.
pub fn report_of(scope: &str, system: &str, name: &str, status: u16, role: &str, timeline: u32) -> Answer {
    let body = json!({
        "state": "running", "role": role, "timeline": timeline, "database_system_identifier": system,
        "patroni": {"version": "4.1.5", "scope": scope, "name": name},
    });
    Answer::Json(status, body)
}

async fn respond(
    mut stream: TcpStream,
    answer: Answer,
    listing: Option<Value>,
    asked: &AtomicU32,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let about_the_cluster = [&b"GET /cluster "[..], b"GET /config "]
        .iter()
        .any(|path| head.starts_with(path));
    let answer = match (answer, listing) {
        (Answer::Json(..), Some(listing)) if about_the_cluster => Answer::Json(200, listing),
        (answer, _) => answer,
    };
    let (status, body, promised) = match answer {
        Answer::Json(status, body) => (status, body.to_string(), 0),
        Answer::Body(body) => (200, body, 0),
        Answer::HalfBody(body) => (200, body[..body.len() / 2].to_owned(), body.len().div_ceil(2)),
        Answer::Nothing => return std::future::pending().await,
        Answer::Reset => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
    };
    let length = body.len() + promised;
    let head = format!("HTTP/1.0 {status} Fake\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await?;
    if promised > 0 {
        return std::future::pending().await;
    }
    stream.shutdown().await
}

async fn talk(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    if byte == [0] {
        // Of these first bytes only an SSLRequest's is a length: the clients of these tests send a letter.
        let mut rest = [0; 7];
        stream.read_exact(&mut rest).await?;
        return stream.write_all(b"N").await;
    }
    stream.write_all(name.as_bytes()).await?;
    loop {
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
    }
}
