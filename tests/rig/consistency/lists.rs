//! The list-append test: serializable transactions that read lists and append unique values to them.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use tokio::time::timeout;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use super::serializability::{Anomaly, Fate, Lists, Operation, Transaction, check};
use super::workload::{DEADLINE, Executed, Outcome, SERVER, Server, Workload};
use crate::support::random::Random;

pub const TABLE: &str = "create table lists (key int primary key, elements int[] not null)";

/// Number of lists that grow at the same time.
const OPEN: usize = 8;
/// Appends after which other lists grow.
const APPENDS: i32 = 400;
/// Most operations of a transaction.
const OPERATIONS: usize = 4;

/// The workload.
#[derive(Default)]
pub struct Appends {
    next: AtomicI32,
}

/// The operations of a transaction; the values of its reads are what it read.
pub type Operations = Vec<Operation>;

impl Workload for Appends {
    type Transaction = Operations;
    const NAME: &str = "lists";

    async fn execute(&self, session: &mut Client, random: &mut Random) -> Executed<Operations> {
        let mut operations = self.choose(random);
        let started = Instant::now();
        let outcome = match timeout(DEADLINE, until_commit(session, &mut operations)).await {
            Ok(Ok(server)) => match timeout(DEADLINE, session.simple_query("commit")).await {
                Ok(Ok(_)) => Outcome::Acknowledged(server),
                Ok(Err(error)) => Outcome::of_commit(&error),
                Err(_) => Outcome::Unknown("no answer".to_owned()),
            },
            // COMMIT was not sent.
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Failed("no answer".to_owned()),
        };
        Executed {
            transaction: operations,
            started,
            ended: Instant::now(),
            outcome,
        }
    }
}

impl Appends {
    /// Chooses reads and appends. One at least is an append, so that the commit waits for the standby: otherwise a
    /// transaction could read what the primary alone has, and still be acknowledged.
    fn choose(&self, random: &mut Random) -> Operations {
        let count = 1 + random.below(OPERATIONS);
        let append_at = random.below(count);
        let operation = |at| {
            let value = self.next.load(Ordering::Relaxed);
            let open = i32::try_from(random.below(OPEN)).expect("a small number");
            let key = value / APPENDS * 10 + open;
            if at == append_at || random.below(2) == 0 {
                Operation::Append(key, self.next.fetch_add(1, Ordering::Relaxed))
            } else {
                Operation::Read(key, Vec::new())
            }
        };
        (0..count).map(operation).collect()
    }
}

/// Executes all but COMMIT, and notes what was read.
async fn until_commit(session: &Client, operations: &mut [Operation]) -> Result<Server, Error> {
    session.simple_query("begin isolation level serializable").await?;
    for operation in operations {
        match operation {
            Operation::Append(key, value) => {
                let append = format!(
                    "insert into lists as list values ({key}, array[{value}])
                     on conflict (key) do update set elements = list.elements || {value}"
                );
                session.simple_query(&append).await?;
            }
            Operation::Read(key, values) => {
                let read = format!("select array_to_string(elements, ',') from lists where key = {key}");
                *values = rows(&session.simple_query(&read).await?)
                    .next()
                    .map(elements)
                    .unwrap_or_default();
            }
        }
    }
    let server = session.simple_query(&format!("select {SERVER}")).await?;
    Ok(Server::of(&server))
}

/// Reads the lists that a session's server has.
pub async fn read(session: &Client) -> Result<Lists, Error> {
    let all = session
        .simple_query("select array_to_string(elements, ','), key from lists")
        .await?;
    let list = |row| (number(row, 1), elements(row));
    Ok(rows(&all).map(list).collect())
}

/// Returns what contradicts the lists at the end.
pub fn contradictions(executed: &[Executed<Operations>], lists: &Lists) -> Vec<String> {
    let transaction = |executed: &Executed<Operations>| Transaction {
        operations: executed.transaction.clone(),
        fate: match executed.outcome {
            Outcome::Acknowledged(_) => Fate::Committed,
            Outcome::Failed(_) => Fate::Aborted,
            Outcome::Unknown(_) => Fate::Unknown,
        },
    };
    let transactions: Vec<_> = executed.iter().map(transaction).collect();
    let anomalies = check(&transactions, lists);
    anomalies.iter().map(Anomaly::to_string).collect()
}

fn rows(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

fn elements(row: &SimpleQueryRow) -> Vec<i32> {
    let text = row.get(0).expect("a list");
    let elements = text.split(',').map(|element| element.parse().expect("a number"));
    elements.collect()
}

fn number(row: &SimpleQueryRow, column: usize) -> i32 {
    row.get(column).and_then(|text| text.parse().ok()).expect("a number")
}
