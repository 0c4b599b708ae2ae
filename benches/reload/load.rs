//! The load: sessions that stay, of which some ask all the time and some read in bulk, and new clients at a fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::postgres::connect;

/// New clients a second.
pub const RATE: u32 = 200;
/// Time for a client to get a session, and for a session to get an answer. A slower one has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the sessions, one in ten reads in bulk, four in ten ask, and the others are idle.
const OF: usize = 10;
const ASKING: usize = 4;
const THINKS: Duration = Duration::from_millis(100);
/// Rows of 1,000 bytes in a bulk session's answer: more of them would occupy two cores, whatever the contender.
const ROWS: usize = 200;
/// Failures that are kept as examples.
const EXAMPLES: usize = 3;

/// Clients at work.
pub struct Load {
    address: SocketAddr,
    counts: Arc<Counts>,
    sessions: JoinSet<()>,
    new: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    connected: AtomicUsize,
    failed: AtomicUsize,
    broken: AtomicUsize,
    sessions: AtomicUsize,
    /// In microseconds, of the sessions that ask.
    longest_answer: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// What the clients saw.
pub struct Seen {
    pub connected: usize,
    pub failed: usize,
    pub sessions: usize,
    pub broken: usize,
    pub longest_answer: Duration,
    pub errors: Vec<String>,
}

/// The work of a session that stays.
#[derive(Clone, Copy)]
enum Work {
    Ask,
    Bulk,
    Rest,
}

impl Load {
    /// Starts the new clients.
    pub fn start(address: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let mut new = JoinSet::new();
        new.spawn(come_and_go(address, counts.clone()));
        Self {
            address,
            counts,
            sessions: JoinSet::new(),
            new,
        }
    }

    /// Opens sessions that stay. One that cannot be opened counts as a failed new client.
    pub async fn open(&mut self, sessions: usize) {
        let mut opening = JoinSet::new();
        for number in 0..sessions {
            let work = match number % OF {
                0 => Work::Bulk,
                number if number <= ASKING => Work::Ask,
                _ => Work::Rest,
            };
            opening.spawn(begin(self.address, work, self.counts.clone()));
        }
        for (client, work) in opening.join_all().await.into_iter().flatten() {
            self.sessions.spawn(stay(client, work, self.counts.clone()));
        }
    }

    /// Returns the longest answer so far, and begins again.
    pub fn longest_answer(&self) -> Duration {
        Duration::from_micros(self.counts.longest_answer.swap(0, Ordering::Relaxed))
    }

    /// Ends all clients, after a last question of every session.
    pub async fn finish(self) -> Seen {
        self.counts.over.store(true, Ordering::Relaxed);
        self.sessions.join_all().await;
        self.new.join_all().await;
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        Seen {
            connected: count(&counts.connected),
            failed: count(&counts.failed),
            sessions: count(&counts.sessions),
            broken: count(&counts.broken),
            longest_answer: Duration::from_micros(counts.longest_answer.load(Ordering::Relaxed)),
            errors: counts.errors.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Counts {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn judge<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        match timeout(PATIENCE, work).await {
            Ok(done) => done.map_err(|error| format!("{error:?}")),
            Err(_) => Err(format!("no answer for {PATIENCE:?}")),
        }
    }

    fn fails(&self, count: &AtomicUsize, error: String) {
        count.fetch_add(1, Ordering::Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < EXAMPLES {
            errors.push(error);
        }
    }
}

/// Connects at the rate, without waiting for the clients before.
async fn come_and_go(address: SocketAddr, counts: Arc<Counts>) {
    let (mut clients, mut ticks) = (JoinSet::new(), interval(Duration::from_secs(1) / RATE));
    while !counts.is_over() {
        ticks.tick().await;
        let counts = counts.clone();
        clients.spawn(async move {
            let visit = async { connect(address).await?.simple_query("select 1").await };
            match counts.judge(visit).await {
                Ok(_) => {
                    counts.connected.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => counts.fails(&counts.failed, format!("new client: {error}")),
            }
        });
        while clients.try_join_next().is_some() {}
    }
    clients.join_all().await;
}

/// Opens a session that stays.
async fn begin(address: SocketAddr, work: Work, counts: Arc<Counts>) -> Option<(Client, Work)> {
    let opened = async {
        let client = connect(address).await?;
        // A pooler gives it a server for its whole life.
        client.simple_query("select 1").await?;
        Ok(client)
    };
    match counts.judge(opened).await {
        Ok(client) => {
            counts.sessions.fetch_add(1, Ordering::Relaxed);
            Some((client, work))
        }
        Err(error) => {
            counts.fails(&counts.failed, error);
            None
        }
    }
}

/// Works until the end, and asks once more.
async fn stay(client: Client, work: Work, counts: Arc<Counts>) {
    loop {
        let is_last = counts.is_over();
        let begun = Instant::now();
        let (query, rows) = match work {
            Work::Bulk => (
                format!("select repeat('x', 1000) from generate_series(1, {ROWS})"),
                ROWS,
            ),
            Work::Ask => ("select 1".to_owned(), 1),
            Work::Rest if is_last => ("select 1".to_owned(), 1),
            Work::Rest => {
                sleep(THINKS).await;
                continue;
            }
        };
        match counts.judge(client.simple_query(&query)).await {
            Ok(messages) => {
                let seen = messages
                    .iter()
                    .filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
                assert_eq!(seen.count(), rows, "rows of {query}");
            }
            Err(error) => return counts.fails(&counts.broken, format!("session: {error}")),
        }
        if matches!(work, Work::Ask) {
            let answered = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.longest_answer.fetch_max(answered, Ordering::Relaxed);
        }
        if is_last {
            return;
        }
        sleep(THINKS).await;
    }
}
