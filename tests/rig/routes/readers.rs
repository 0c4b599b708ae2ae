//! Readers on a route: clients that connect, ask once and disconnect, and sessions that stay. At each query they check
//! whether the server is in recovery, and how far its replay is behind the primary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error};

use crate::support::{Member, Rig, session};

/// The limit of the routes with `max-lag`.
pub const LIMIT: u64 = 16 << 20;
/// Deadline of a connection and of a query, which only guards against hanging.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two queries of a session.
const PAUSE: Duration = Duration::from_millis(200);

/// The server, whether it is in recovery, and its position in the WAL.
const QUESTION: &str = "select host(inet_server_addr()), inet_server_port(), pg_is_in_recovery(),
    ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::bigint";

/// The position of the primary, read without any proxy all the time.
pub struct Position {
    newest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// An answer to [`QUESTION`].
pub struct Reading {
    pub server: String,
    pub in_recovery: bool,
    position: Option<u64>,
}

/// Observations of readers.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections of new clients that were ready.
    pub connected: usize,
    /// Connections of new clients that failed before they were ready.
    pub failed: Vec<String>,
    pub longest_wait: Duration,
    /// Answers from a server that is not in recovery.
    pub on_a_primary: usize,
    /// Answers to new clients from a server that was further behind than [`LIMIT`].
    pub late_reads: usize,
    /// The same in sessions that were open.
    pub late_reads_in_sessions: usize,
    /// Ends of open sessions: the time, and the server.
    pub ends: Vec<(Instant, String)>,
}

/// Clients of one address. Their drop ends them.
pub struct Readers {
    seen: Arc<Mutex<Seen>>,
    servers: Arc<Mutex<BTreeMap<usize, String>>>,
    clients: JoinSet<()>,
}

/// Number and lifetimes of clients.
#[derive(Clone, Copy)]
pub struct Crowd {
    /// Clients that connect, ask once and disconnect, and the pause between.
    pub newcomers: usize,
    pub pause: Duration,
    /// Sessions that stay.
    pub sessions: usize,
    /// Time after which a session is closed and opened again, as by a pool; `None` keeps it.
    pub lifetime: Option<Duration>,
}

impl Position {
    /// Reads the position of whichever member is the primary.
    pub fn follow(rig: &Rig) -> Self {
        let newest = Arc::new(AtomicU64::new(0));
        let addresses: Vec<_> = rig.members().iter().map(Member::address).collect();
        let task = tokio::spawn(read_positions(addresses, newest.clone()));
        Self { newest, task }
    }

    /// Returns the newest position that was read.
    fn newest(&self) -> Arc<AtomicU64> {
        self.newest.clone()
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_positions(addresses: Vec<SocketAddr>, newest: Arc<AtomicU64>) {
    for address in addresses.iter().cycle() {
        if let Ok(Ok(client)) = timeout(Duration::from_secs(1), session(*address)).await {
            while let Ok(Ok(reading)) = timeout(Duration::from_secs(1), ask(&client)).await {
                let position = reading.position.filter(|_| !reading.in_recovery);
                let Some(position) = position else { break };
                newest.fetch_max(position, Ordering::SeqCst);
                sleep(Duration::from_millis(20)).await;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl Readers {
    /// Starts the clients of this address.
    pub fn start(address: SocketAddr, position: &Position, crowd: Crowd) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let servers = Arc::new(Mutex::new(BTreeMap::new()));
        let mut clients = JoinSet::new();
        for _ in 0..crowd.newcomers {
            clients.spawn(come_and_go(address, crowd.pause, seen.clone(), position.newest()));
        }
        for number in 0..crowd.sessions {
            let servers = servers.clone();
            clients.spawn(stay(number, address, crowd, seen.clone(), servers, position.newest()));
        }
        Self { seen, servers, clients }
    }

    /// Returns what was seen since the last call.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }

    /// Returns the number of open sessions by server.
    pub fn sessions(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for server in lock(&self.servers).values() {
            *counts.entry(server.clone()).or_default() += 1;
        }
        counts
    }

    /// Ends the clients, and returns what was seen since the last call.
    pub async fn finish(mut self) -> Seen {
        self.clients.shutdown().await;
        self.take()
    }
}

/// Asks a session's server.
pub async fn ask(client: &Client) -> Result<Reading, Error> {
    let row = client.query_one(QUESTION, &[]).await?;
    let (host, port): (String, i32) = (row.get(0), row.get(1));
    Ok(Reading {
        server: format!("{host}:{port}"),
        in_recovery: row.get(2),
        position: row.get::<_, Option<i64>>(3).map(i64::unsigned_abs),
    })
}

async fn come_and_go(address: SocketAddr, pause: Duration, seen: Arc<Mutex<Seen>>, newest: Arc<AtomicU64>) {
    loop {
        let began = Instant::now();
        let connected = timeout(DEADLINE, session(address)).await;
        let waited = began.elapsed();
        let client = {
            let mut seen = lock(&seen);
            seen.longest_wait = seen.longest_wait.max(waited);
            match connected {
                Ok(Ok(client)) => {
                    seen.connected += 1;
                    Some(client)
                }
                Ok(Err(error)) => {
                    seen.failed.push(format!("{error:?}"));
                    None
                }
                Err(_) => {
                    seen.failed.push(format!("no answer within {DEADLINE:?}"));
                    None
                }
            }
        };
        if let Some(client) = client {
            // A lower bound of the lag: the primary's position from before the query.
            let primary = newest.load(Ordering::SeqCst);
            if let Ok(Ok(reading)) = timeout(DEADLINE, ask(&client)).await {
                let mut seen = lock(&seen);
                seen.on_a_primary += usize::from(!reading.in_recovery);
                seen.late_reads += usize::from(reading.is_late(primary));
            }
        }
        sleep(pause).await;
    }
}

async fn stay(
    number: usize,
    address: SocketAddr,
    crowd: Crowd,
    seen: Arc<Mutex<Seen>>,
    servers: Arc<Mutex<BTreeMap<usize, String>>>,
    newest: Arc<AtomicU64>,
) {
    // The first lives of sessions differ, so that they do not end together.
    let mut age = crowd
        .lifetime
        .map(|whole| whole.mul_f64(number as f64 / crowd.sessions as f64));
    loop {
        if let Ok(Ok(client)) = timeout(DEADLINE, session(address)).await {
            let born = Instant::now();
            let left = crowd.lifetime.map(|whole| whole - age.take().unwrap_or_default());
            while left.is_none_or(|left| born.elapsed() < left) {
                let primary = newest.load(Ordering::SeqCst);
                match timeout(DEADLINE, ask(&client)).await {
                    Ok(Ok(reading)) => {
                        let mut seen = lock(&seen);
                        seen.on_a_primary += usize::from(!reading.in_recovery);
                        seen.late_reads_in_sessions += usize::from(reading.is_late(primary));
                        lock(&servers).insert(number, reading.server);
                    }
                    _ => {
                        let server = lock(&servers).get(&number).cloned().unwrap_or_default();
                        lock(&seen).ends.push((Instant::now(), server));
                        break;
                    }
                }
                sleep(PAUSE).await;
            }
        }
        lock(&servers).remove(&number);
        sleep(Duration::from_millis(20)).await;
    }
}

impl Reading {
    fn is_late(&self, primary: u64) -> bool {
        self.in_recovery && self.position.is_some_and(|position| position + LIMIT < primary)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
