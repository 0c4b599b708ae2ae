//! Clients that connect, insert one row and disconnect, all the time: an application's view of a change of leader.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::psql::session;

/// Deadline of an attempt, which only guards against hanging.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two attempts of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients at work.
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<Vec<Attempt>>,
}

/// One connect, insert and close.
#[derive(Debug)]
pub struct Attempt {
    /// The row's key.
    pub id: String,
    pub started: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

/// The result of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// This server acknowledged the row.
    Acknowledged { server: String },
    /// The connection was refused, or broke before it was ready.
    NotConnected(String),
    /// The connection broke after it was ready: it is not known whether the row was inserted.
    Broken(String),
    /// The server answered that it is read-only: pgnorth sent the write to a wrong server.
    ReadOnly(String),
}

impl Load {
    /// Creates the table, and starts `clients` clients at `address`.
    pub async fn start(address: SocketAddr, clients: usize) -> Self {
        let first = session(address).await.expect("connect to make the table");
        let table = "create table if not exists load (id text primary key)";
        first.batch_execute(table).await.expect("make the table");
        let stop = CancellationToken::new();
        let run: Arc<str> = format!("{:?}", Instant::now()).into();
        let mut load = Self {
            stop,
            clients: JoinSet::new(),
        };
        for client in 0..clients {
            let stop = load.stop.clone();
            let run = run.clone();
            load.clients.spawn(async move {
                let mut attempts = Vec::new();
                while !stop.is_cancelled() {
                    let id = format!("{run} {client} {}", attempts.len());
                    attempts.push(attempt(address, id).await);
                    tokio::time::sleep(PAUSE).await;
                }
                attempts
            });
        }
        load
    }

    /// Ends the clients after their present attempts, and returns every attempt in the order of their beginnings.
    pub async fn finish(mut self) -> Vec<Attempt> {
        self.stop.cancel();
        let mut attempts = Vec::new();
        while let Some(of_one) = self.clients.join_next().await {
            attempts.extend(of_one.expect("a client ends by itself"));
        }
        attempts.sort_by_key(|attempt| attempt.started);
        attempts
    }
}

async fn attempt(address: SocketAddr, id: String) -> Attempt {
    let started = Instant::now();
    let outcome = tokio::time::timeout(DEADLINE, insert(address, &id)).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("an attempt hung for {DEADLINE:?}: {id}"));
    Attempt {
        id,
        started,
        ended: Instant::now(),
        outcome,
    }
}

async fn insert(address: SocketAddr, id: &str) -> Outcome {
    let client = match session(address).await {
        Ok(client) => client,
        Err(error) => return Outcome::NotConnected(whole(&error)),
    };
    let insert = format!("insert into load values ('{id}') returning host(inet_server_addr())");
    match client.simple_query(&insert).await {
        Ok(messages) => Outcome::Acknowledged {
            server: first_value(&messages).expect("the insert returns a row"),
        },
        Err(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Outcome::ReadOnly(whole(&error)),
        Err(error) => Outcome::Broken(whole(&error)),
    }
}

fn first_value(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// Returns the error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}
