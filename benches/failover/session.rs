//! One session with PostgreSQL, in plaintext or TLS, that inserts rows and learns which server acknowledged them.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use crate::libpq::Libpq;
use crate::support::psql::config;
use crate::tls::Tls;

/// An open session. Its drop closes it.
pub enum Session {
    Rust(Client, JoinHandle<Instant>),
    Libpq(Box<Libpq>),
}

/// A failed attempt to connect or to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server answered that it is read-only.
    ReadOnly,
    Other(String),
}

/// The server that acknowledged a row, and the row's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub server: String,
    pub timeline: u32,
}

/// Returns the insert of a row with this id. Its answer names the server and the timeline.
pub fn insert(id: &str) -> String {
    format!(
        "insert into failover values ('{id}') \
         returning host(inet_server_addr()), pg_walfile_name(pg_current_wal_insert_lsn())"
    )
}

impl Session {
    /// Connects, with or without TLS. The server does not log the session's errors: a replica would log each insert.
    pub async fn open(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, Failure> {
        let mut config = config(address);
        config.options("-c log_min_messages=panic");
        let Some(tls) = tls else {
            let (client, connection) = config.connect(NoTls).await?;
            return Ok(Self::watched(client, connection));
        };
        config.ssl_mode(SslMode::Require);
        let (client, connection) = config.connect(tls.clone()).await?;
        Ok(Self::watched(client, connection))
    }

    fn watched(client: Client, connection: impl Future<Output: Send> + Send + 'static) -> Self {
        let end = tokio::spawn(async move {
            connection.await;
            Instant::now()
        });
        Self::Rust(client, end)
    }

    /// Connects by libpq, and returns the process for this session or, after a failure, for the next attempt.
    pub async fn open_by_libpq(mut libpq: Box<Libpq>, conninfo: &str) -> (Result<(), Failure>, Box<Libpq>) {
        let answer = libpq.call("connect", conninfo).await;
        let opened = answer.map_err(|error| Failure::Other(error.to_string()));
        (opened.and_then(succeeded).map(drop), libpq)
    }

    /// Returns true if the other side has closed the session. libpq notices it in the next insert alone.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Rust(client, _) => client.is_closed(),
            Self::Libpq(_) => false,
        }
    }

    /// Returns the time at which the other side closed the session.
    pub async fn ended(self) -> Instant {
        match self {
            // The client must stay: its drop would close the session.
            Self::Rust(_client, end) => end.await.expect("the connection's task ends by itself"),
            Self::Libpq(mut libpq) => {
                let ended = libpq.call("wait_for_end", "").await;
                ended.expect("libpq waits until the session ends");
                Instant::now()
            }
        }
    }

    /// Runs a statement of `insert`.
    pub async fn insert(&mut self, insert: &str) -> Result<Acknowledgement, Failure> {
        let [server, file] = match self {
            Self::Rust(client, _) => row(&client.simple_query(insert).await?),
            Self::Libpq(libpq) => {
                let answer = libpq.call("execute", insert).await;
                let answer = succeeded(answer.map_err(|error| Failure::Other(error.to_string()))?)?;
                [0, 1].map(|column| answer["row"][column].as_str().expect("no column is null").to_owned())
            }
        };
        Ok(Acknowledgement {
            server,
            // The name of a WAL file begins with the timeline, in eight hexadecimal digits.
            timeline: u32::from_str_radix(&file[..8], 16).expect("the name of a WAL file"),
        })
    }
}

fn row(messages: &[SimpleQueryMessage]) -> [String; 2] {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("the insert returns a row");
    [0, 1].map(|column| row.get(column).expect("no column is null").to_owned())
}

/// Returns an answer of libpq, or the failure in it.
fn succeeded(answer: Value) -> Result<Value, Failure> {
    let Some(error) = answer["error"].as_str() else {
        return Ok(answer);
    };
    match answer["sqlstate"].as_str() == Some(SqlState::READ_ONLY_SQL_TRANSACTION.code()) {
        true => Err(Failure::ReadOnly),
        false => Err(Failure::Other(error.to_owned())),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.code() {
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly,
            _ => Self::Other(whole(&error)),
        }
    }
}

/// Returns the error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}
