//! Clients of one contender, of three kinds, and their observations. `figures` counts them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::session::{Acknowledgement, Session, insert};
use crate::tls::Tls;

/// Number of clients of each kind.
pub const OF_EACH_KIND: usize = 3;

/// Pause between two attempts of one comer. A connection costs PostgreSQL a process, and all clients share two cores.
const COMERS_PAUSE: Duration = Duration::from_millis(40);

/// Pause between two inserts of one stayer.
const STAYERS_PAUSE: Duration = Duration::from_millis(20);

/// Deadline of an attempt, after which it counts as a hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// The kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connects, inserts one row and closes, all the time.
    Comer,
    /// Inserts on one session all the time, and connects again when it breaks.
    Stayer,
}

/// One connect and insert of a comer; one insert of a stayer, or one of its connects that failed.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub kind: Kind,
    pub client: usize,
    pub started: Instant,
    /// Time at which the session was ready, if it was opened for this attempt.
    pub connected: Option<Instant>,
    pub ended: Instant,
    pub outcome: Outcome,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged(Acknowledgement),
    /// The connection was refused, or broke before it was ready.
    NotConnected(String),
    /// The session broke during the insert.
    Broken(String),
    /// The server answered that it is read-only: the write was sent to a wrong server.
    ReadOnly,
    /// The attempt was not complete at the end.
    Unfinished,
}

/// The observations of the clients of one contender.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub attempts: Vec<Attempt>,
    /// Each idle session, with the time of its end, if it ended.
    pub idle: Vec<Option<Instant>>,
}

/// Clients at work.
pub struct Clients {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct One {
    kind: Kind,
    client: usize,
    address: SocketAddr,
    tls: Option<Tls>,
    /// The beginning of its rows' ids, which makes them unique.
    name: String,
    rows: u64,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
}

impl Seen {
    /// Returns every acknowledged row, with the server and the time.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&Acknowledgement, Instant)> {
        self.attempts.iter().filter_map(|attempt| match &attempt.outcome {
            Outcome::Acknowledged(by) => Some((by, attempt.ended)),
            _ => None,
        })
    }
}

impl Clients {
    /// Starts three clients of each kind at `address`; no others have this `name`.
    pub fn start(name: &str, address: SocketAddr, tls: Option<&Tls>) -> Self {
        let mut clients = Self {
            seen: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        for client in 0..OF_EACH_KIND {
            let one = |kind| One {
                kind,
                client,
                address,
                tls: tls.cloned(),
                name: format!("{name} {kind:?} {client}"),
                rows: 0,
                seen: clients.seen.clone(),
                stop: clients.stop.clone(),
            };
            let (comer, stayer, idler) = (one(Kind::Comer), one(Kind::Stayer), one(Kind::Stayer));
            clients.tasks.spawn(comer.come_and_go());
            clients.tasks.spawn(stayer.stay());
            clients.tasks.spawn(idler.idle());
        }
        clients
    }

    /// Returns the observations so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Returns true if a timeline newer than `timeline` has acknowledged a row of every comer and stayer.
    pub fn are_all_beyond(&self, timeline: u32) -> bool {
        let seen = lock(&self.seen);
        let is_beyond = |kind, client| {
            let of_one = |attempt: &&Attempt| attempt.kind == kind && attempt.client == client;
            let on_newer =
                |attempt: &Attempt| matches!(&attempt.outcome, Outcome::Acknowledged(by) if by.timeline > timeline);
            // The newest rows are at the end.
            seen.attempts.iter().rev().filter(of_one).any(on_newer)
        };
        (0..OF_EACH_KIND).all(|client| is_beyond(Kind::Comer, client) && is_beyond(Kind::Stayer, client))
    }

    /// Returns true if all sessions that are to stay idle are open.
    pub fn are_all_idle(&self) -> bool {
        let seen = lock(&self.seen);
        seen.idle.len() == OF_EACH_KIND && seen.idle.iter().all(Option::is_none)
    }

    /// Forgets the attempts so far.
    pub fn forget(&self) {
        lock(&self.seen).attempts.clear();
    }

    /// Ends the clients; attempts under way are unfinished.
    pub async fn finish(mut self) -> Seen {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.seen()
    }
}

impl One {
    async fn come_and_go(mut self) {
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let mut connected = None;
            let insert = self.insert();
            let outcome = match self.bounded(self.connect(), Outcome::NotConnected).await {
                Ok(session) => {
                    connected = Some(Instant::now());
                    self.bounded(insert_on(&session, &insert), Outcome::Broken).await
                }
                Err(outcome) => Err(outcome),
            };
            self.record(started, connected, outcome);
            self.pause().await;
        }
    }

    async fn stay(mut self) {
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            match self.bounded(self.connect(), Outcome::NotConnected).await {
                Ok(session) => self.insert_all_the_time(&session).await,
                Err(outcome) => self.record(started, None, Err(outcome)),
            }
            self.pause().await;
        }
    }

    /// Inserts rows until the session is unusable.
    async fn insert_all_the_time(&mut self, session: &Session) {
        loop {
            let started = Instant::now();
            let insert = self.insert();
            let outcome = self.bounded(insert_on(session, &insert), Outcome::Broken).await;
            let goes_on = outcome.is_ok();
            self.record(started, None, outcome);
            if !goes_on {
                return;
            }
            self.pause().await;
        }
    }

    async fn idle(self) {
        let session = loop {
            match self.bounded(self.connect(), Outcome::NotConnected).await {
                Ok(session) => break session,
                Err(_) if self.stop.is_cancelled() => return,
                Err(_) => self.pause().await,
            }
        };
        let place = {
            let mut seen = lock(&self.seen);
            seen.idle.push(None);
            seen.idle.len() - 1
        };
        tokio::select! {
            at = session.ended() => lock(&self.seen).idle[place] = Some(at),
            () = self.stop.cancelled() => {}
        }
    }

    async fn connect(&self) -> Result<Session, Outcome> {
        let session = Session::open(self.address, self.tls.as_ref()).await;
        session.map_err(|error| Outcome::NotConnected(whole(&error)))
    }

    /// Returns the insert of the next row, whose id no other row has.
    fn insert(&mut self) -> String {
        self.rows += 1;
        insert(&format!("{} {}", self.name, self.rows))
    }

    /// Waits until the deadline or the end of the round.
    async fn bounded<T>(
        &self,
        doing: impl Future<Output = Result<T, Outcome>>,
        hung: fn(String) -> Outcome,
    ) -> Result<T, Outcome> {
        tokio::select! {
            done = timeout(DEADLINE, doing) => done.unwrap_or_else(|_| Err(hung(format!("hung for {DEADLINE:?}")))),
            () = self.stop.cancelled() => Err(Outcome::Unfinished),
        }
    }

    fn record(&self, started: Instant, connected: Option<Instant>, outcome: Result<Acknowledgement, Outcome>) {
        lock(&self.seen).attempts.push(Attempt {
            kind: self.kind,
            client: self.client,
            started,
            connected,
            ended: Instant::now(),
            outcome: outcome.map_or_else(|outcome| outcome, Outcome::Acknowledged),
        });
    }

    async fn pause(&self) {
        let pause = match self.kind {
            Kind::Comer => COMERS_PAUSE,
            Kind::Stayer => STAYERS_PAUSE,
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn insert_on(session: &Session, insert: &str) -> Result<Acknowledgement, Outcome> {
    session.insert(insert).await.map_err(|error| match error.code() {
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Outcome::ReadOnly,
        _ => Outcome::Broken(whole(&error)),
    })
}

/// Returns the error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
