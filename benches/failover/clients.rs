//! Clients of one contender, of three kinds, and their observations. `figures` counts them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::connector::Connector;
use crate::session::{Acknowledgement, Failure, Session, insert};

/// Number of clients of each kind.
pub const OF_EACH_KIND: usize = 3;

/// Pause between two attempts of one comer, for each contender in the run: a connection costs PostgreSQL a process, and
/// all clients share the cores, so more contenders must not mean more load.
const COMERS_PAUSE: Duration = Duration::from_millis(13);

/// Pause between two inserts of one stayer, for each contender.
const STAYERS_PAUSE: Duration = Duration::from_millis(7);

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
    connector: Connector,
    pause: Duration,
    /// The beginning of its rows' ids, which makes them unique.
    name: String,
    rows: u64,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
}

impl Kind {
    fn pause(self) -> Duration {
        match self {
            Self::Comer => COMERS_PAUSE,
            Self::Stayer => STAYERS_PAUSE,
        }
    }
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
    /// Starts three clients of each kind; no others have this `name`. `contenders` is the number of those in the run.
    pub fn start(name: &str, connector: impl Fn() -> Connector, contenders: u32) -> Self {
        let mut clients = Self {
            seen: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        for client in 0..OF_EACH_KIND {
            let one = |kind| One {
                kind,
                client,
                connector: connector(),
                pause: kind.pause() * contenders,
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
            let outcome = match self.connect().await {
                Ok(mut session) => {
                    connected = Some(Instant::now());
                    let outcome = self.insert_on(&mut session, &insert).await;
                    self.connector.close(session).await;
                    outcome
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
            match self.connect().await {
                Ok(session) => self.insert_all_the_time(session).await,
                Err(outcome) => self.record(started, None, Err(outcome)),
            }
            self.pause().await;
        }
    }

    /// Inserts rows until the session is unusable.
    async fn insert_all_the_time(&mut self, mut session: Session) {
        loop {
            let started = Instant::now();
            let insert = self.insert();
            let outcome = self.insert_on(&mut session, &insert).await;
            if outcome.is_err() {
                self.connector.close(session).await;
                return self.record(started, None, outcome);
            }
            self.record(started, None, outcome);
            self.pause().await;
        }
    }

    async fn idle(mut self) {
        let session = loop {
            match self.connect().await {
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

    async fn connect(&mut self) -> Result<Session, Outcome> {
        bounded(&self.stop, self.connector.open(), Outcome::NotConnected).await
    }

    async fn insert_on(&self, session: &mut Session, insert: &str) -> Result<Acknowledgement, Outcome> {
        bounded(&self.stop, session.insert(insert), Outcome::Broken).await
    }

    /// Returns the insert of the next row, whose id no other row has.
    fn insert(&mut self) -> String {
        self.rows += 1;
        insert(&format!("{} {}", self.name, self.rows))
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
        tokio::select! {
            () = sleep(self.pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Waits until the deadline or the end of the round. `failed` makes an outcome of any failure but a read-only server.
async fn bounded<T>(
    stop: &CancellationToken,
    doing: impl Future<Output = Result<T, Failure>>,
    failed: fn(String) -> Outcome,
) -> Result<T, Outcome> {
    let done = tokio::select! {
        done = timeout(DEADLINE, doing) => done,
        () = stop.cancelled() => return Err(Outcome::Unfinished),
    };
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::ReadOnly)) => Err(Outcome::ReadOnly),
        Ok(Err(Failure::Other(why))) => Err(failed(why)),
        Err(_) => Err(failed(format!("hung for {DEADLINE:?}"))),
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
