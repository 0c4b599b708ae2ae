//! The state of the members and of both pgnorths, asked for many times a second from outside of every partition.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::claims::{Look, Span};
use super::cluster::Cluster;
use super::lock::{Lock, Question};
use super::workload::session;
use crate::support::http::{Http, Request};

/// Pause between two looks at a pgnorth.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two writes to a member, and between two looks at the lock.
const WRITE: Duration = Duration::from_millis(250);
/// Deadline of each question.
const QUESTION: Duration = Duration::from_secs(1);

/// The watch. Its drop ends it.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    looks: Vec<Vec<Look>>,
    /// Spans in which a member was a healthy primary: it acknowledged each write, its Patroni called it the primary, and
    /// the lock had not expired.
    healthy: Vec<Vec<Span>>,
    /// The last look at each member found that it was not.
    unhealthy: Vec<bool>,
    lock: Lock,
}

/// One member, as it is asked.
struct Asked {
    address: SocketAddr,
    url: String,
    session: Option<Client>,
}

impl Watch {
    /// Makes the table for the watch's own writes, and begins.
    pub async fn start(cluster: &Cluster) -> Self {
        let (members, pgnorths) = (cluster.rig.members(), &cluster.pgnorths);
        let table = "create table probe (at timestamptz default clock_timestamp())";
        cluster.rig.leader().await.psql(table).await.expect("make the table");
        let seen = Arc::new(Mutex::new(Seen {
            looks: vec![Vec::new(); pgnorths.len()],
            healthy: vec![Vec::new(); members.len()],
            unhealthy: vec![true; members.len()],
            lock: Lock::default(),
        }));
        let mut tasks = JoinSet::new();
        for (number, pgnorth) in pgnorths.iter().enumerate() {
            let (http, url) = (cluster.rig.http().clone(), pgnorth.url("/leader"));
            tasks.spawn(look_at_pgnorth(http, url, number, seen.clone()));
        }
        for (number, member) in members.iter().enumerate() {
            let asked = Asked {
                address: member.address(),
                url: format!("{}/primary", member.rest_url()),
                session: None,
            };
            tasks.spawn(write_to_member(cluster.rig.http().clone(), asked, number, seen.clone()));
        }
        if let Some(question) = Question::of(cluster) {
            tasks.spawn(look_at_lock(question, seen.clone()));
        }
        Self { seen, _tasks: tasks }
    }

    /// Returns the member that is the healthy primary since a time not before `after`, if there is one.
    pub fn healthy_since(&self, after: Instant) -> Option<usize> {
        let seen = lock(&self.seen);
        let is_healthy = |number: &usize| {
            let last = seen.healthy[*number].last();
            !seen.unhealthy[*number] && last.is_some_and(|span| span.to >= after)
        };
        (0..seen.healthy.len()).find(is_healthy)
    }

    /// Returns the server to which each pgnorth sent clients at its last look.
    pub fn routes(&self) -> Vec<Option<Ipv4Addr>> {
        let seen = lock(&self.seen);
        seen.looks.iter().map(|looks| looks.last()?.route).collect()
    }

    /// Returns every look at each pgnorth.
    pub fn looks(&self) -> Vec<Vec<Look>> {
        lock(&self.seen).looks.clone()
    }

    /// Returns the healthy spans of each member.
    pub fn healthy(&self) -> Vec<Vec<Span>> {
        lock(&self.seen).healthy.clone()
    }
}

async fn look_at_pgnorth(http: Http, url: String, number: usize, seen: Arc<Mutex<Seen>>) {
    loop {
        let request = Request {
            within: QUESTION,
            ..Request::get(&url)
        };
        let answer = http.ask(&request).await.map(|answer| answer.json());
        let look = Look {
            at: Instant::now(),
            route: answer.ok().as_ref().and_then(route),
        };
        lock(&seen).looks[number].push(look);
        sleep(LOOK).await;
    }
}

/// Returns the server to which new clients are sent.
fn route(answer: &Value) -> Option<Ipv4Addr> {
    if answer["state"] != "route" {
        return None;
    }
    let address: SocketAddr = answer["address"].as_str()?.parse().ok()?;
    match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

async fn look_at_lock(question: Question, seen: Arc<Mutex<Seen>>) {
    loop {
        let renewal = question.ask(QUESTION).await;
        lock(&seen).lock.note(renewal, Instant::now());
        sleep(WRITE).await;
    }
}

async fn write_to_member(http: Http, mut asked: Asked, number: usize, seen: Arc<Mutex<Seen>>) {
    loop {
        let begun = Instant::now();
        let is_healthy = asked.writes().await && asked.is_called_primary(&http).await;
        lock(&seen).note(number, begun, is_healthy);
        sleep(WRITE).await;
    }
}

impl Asked {
    async fn writes(&mut self) -> bool {
        let written = timeout(QUESTION, self.write()).await;
        if !matches!(written, Ok(Ok(_))) {
            self.session = None;
        }
        matches!(written, Ok(Ok(true)))
    }

    /// Writes a row, and returns true; returns false on a replica.
    async fn write(&mut self) -> Result<bool, tokio_postgres::Error> {
        if self.session.is_none() {
            self.session = Some(session(self.address).await?);
        }
        let session = self.session.as_ref().expect("a session");
        let recovers: bool = session.query_one("select pg_is_in_recovery()", &[]).await?.get(0);
        if !recovers {
            session.batch_execute("insert into probe default values").await?;
        }
        Ok(!recovers)
    }

    async fn is_called_primary(&self, http: &Http) -> bool {
        let request = Request {
            within: QUESTION,
            ..Request::get(&self.url)
        };
        let Ok(answer) = http.ask(&request).await else {
            return false;
        };
        let status = answer.json();
        answer.status == 200 && status["role"] == "primary" && status["state"] == "running"
    }
}

impl Seen {
    /// Records the outcome of a write that was begun then.
    fn note(&mut self, number: usize, begun: Instant, is_healthy: bool) {
        let is_healthy = is_healthy && !self.lock.has_expired(Instant::now());
        let spans = &mut self.healthy[number];
        match spans.last_mut() {
            // It was healthy in between.
            Some(last) if is_healthy && !self.unhealthy[number] => last.to = begun,
            _ if is_healthy => {
                let now = Instant::now();
                spans.push(Span { from: now, to: now });
            }
            _ => {}
        }
        self.unhealthy[number] = !is_healthy;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
