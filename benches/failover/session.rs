//! One session with PostgreSQL, in plaintext or TLS, that inserts rows and learns which server acknowledged them.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use crate::support::psql::config;
use crate::tls::Tls;

/// An open session. Its drop closes it.
pub struct Session {
    client: Client,
    end: JoinHandle<Instant>,
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
    pub async fn open(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, Error> {
        let mut config = config(address);
        config.options("-c log_min_messages=panic");
        let Some(tls) = tls else {
            let (client, connection) = config.connect(NoTls).await?;
            return Ok(Self::new(client, connection));
        };
        config.ssl_mode(SslMode::Require);
        let (client, connection) = config.connect(tls.clone()).await?;
        Ok(Self::new(client, connection))
    }

    fn new(client: Client, connection: impl Future<Output: Send> + Send + 'static) -> Self {
        let end = tokio::spawn(async move {
            connection.await;
            Instant::now()
        });
        Self { client, end }
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns the time at which the other side closed the session.
    pub async fn ended(mut self) -> Instant {
        (&mut self.end).await.expect("the connection's task ends by itself")
    }

    /// Runs a statement of `insert`.
    pub async fn insert(&self, insert: &str) -> Result<Acknowledgement, Error> {
        let messages = self.client.simple_query(insert).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.expect("the insert returns a row");
        let value = |column| row.get(column).expect("no column is null");
        Ok(Acknowledgement {
            server: value(0).to_owned(),
            // The name of a WAL file begins with the timeline, in eight hexadecimal digits.
            timeline: u32::from_str_radix(&value(1)[..8], 16).expect("the name of a WAL file"),
        })
    }
}
