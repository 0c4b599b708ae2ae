//! Clients of both pgnorths. Each keeps its session for some transactions, then opens another one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::history::History;
use crate::support::psql;
use crate::support::random::Random;

/// Deadline of a transaction, as in Patroni's own test: its client goes away, and its outcome stays unknown.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two transactions of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// Clients of each pgnorth.
const CLIENTS: usize = 2;
/// Mean number of transactions of one session.
const SESSION: usize = 30;

/// The role of all sessions of the test. It is no superuser: backends whose clients are gone wait for a standby, and must not
/// take the connections that are reserved for Patroni, without which no standby comes back.
pub const ROLE: &str = "create role app login password 'rig' in role pg_read_all_data, pg_write_all_data";

/// Opens a session of that role.
pub async fn session(address: SocketAddr) -> Result<Client, Error> {
    let (client, connection) = psql::config(address).user("app").connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The kind of transactions that a client executes.
pub trait Workload: Send + Sync + 'static {
    type Transaction: Send + std::fmt::Debug;
    /// The name in the history.
    const NAME: &str;

    /// Executes one.
    fn execute(
        &self,
        session: &mut Client,
        random: &mut Random,
    ) -> impl Future<Output = Executed<Self::Transaction>> + Send;
}

/// A transaction that is over, as its client saw it.
#[derive(Clone, Debug)]
pub struct Executed<T> {
    pub transaction: T,
    pub started: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// COMMIT was acknowledged, by this server.
    Acknowledged(Server),
    /// It was not committed.
    Failed(String),
    /// The connection broke, or the deadline passed, after COMMIT may have reached a server.
    Unknown(String),
}

/// The server of a transaction, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: String,
    pub timeline: u32,
    pub recovers: bool,
}

/// The SQL of a [`Server`]; the name of the WAL file begins with the timeline.
pub const SERVER: &str =
    "host(inet_server_addr()), left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_is_in_recovery()";

impl Server {
    /// Returns the server that the answer names.
    pub fn of(answer: &[SimpleQueryMessage]) -> Self {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |index| row.and_then(|row| row.get(index)).expect("a column of the server");
        Self::new(column(0), column(1), column(2) == "t")
    }

    /// Returns the server of these columns.
    pub fn new(address: &str, timeline: &str, recovers: bool) -> Self {
        Self {
            address: address.to_owned(),
            timeline: u32::from_str_radix(timeline, 16).expect("a timeline"),
            recovers,
        }
    }
}

impl Outcome {
    /// Returns the outcome of a transaction whose COMMIT brought this error.
    pub fn of_commit(error: &Error) -> Self {
        match error.as_db_error() {
            // The server ends the session (class 57), perhaps after the commit.
            Some(error) if !error.code().code().starts_with("57") => Self::Failed(error.to_string()),
            _ => Self::Unknown(whole(error)),
        }
    }
}

/// Clients at work.
pub struct Clients<W: Workload> {
    stop: CancellationToken,
    tasks: JoinSet<Vec<Executed<W::Transaction>>>,
}

impl<W: Workload> Clients<W> {
    /// Starts clients of each of these addresses.
    pub fn start(workload: W, addresses: &[SocketAddr], random: &mut Random, history: &Arc<History>) -> Self {
        let (workload, stop) = (Arc::new(workload), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for address in addresses.iter().flat_map(|address| [*address; CLIENTS]) {
            let (workload, stop, history) = (workload.clone(), stop.clone(), history.clone());
            let random = Random(random.below(usize::MAX) as u64);
            tasks.spawn(async move { client(&*workload, address, random, &stop, &history).await });
        }
        Self { stop, tasks }
    }

    /// Ends the clients after their present transactions; returns all transactions.
    pub async fn finish(&mut self) -> Vec<Executed<W::Transaction>> {
        self.stop.cancel();
        let mut executed = Vec::new();
        while let Some(of_one) = self.tasks.join_next().await {
            executed.extend(of_one.expect("a client ends by itself"));
        }
        executed.sort_by_key(|transaction| transaction.started);
        executed
    }
}

async fn client<W: Workload>(
    workload: &W,
    address: SocketAddr,
    mut random: Random,
    stop: &CancellationToken,
    history: &History,
) -> Vec<Executed<W::Transaction>> {
    let (mut all, mut open) = (Vec::new(), None);
    while !stop.is_cancelled() {
        sleep(PAUSE).await;
        let mut session = match open.take() {
            Some(session) => session,
            None => match timeout(DEADLINE, session(address)).await {
                Ok(Ok(session)) => session,
                _ => continue,
            },
        };
        let executed = workload.execute(&mut session, &mut random).await;
        let Executed {
            transaction, outcome, ..
        } = &executed;
        history.note(
            W::NAME,
            executed.started,
            json!(format!("{address}: {transaction:?}: {outcome:?}")),
        );
        let is_usable = matches!(outcome, Outcome::Acknowledged(_));
        if is_usable && random.below(SESSION) > 0 {
            open = Some(session);
        }
        all.push(executed);
    }
    all
}

/// Returns the error with its causes.
pub fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}
