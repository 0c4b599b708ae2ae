//! The set test: unique numbers are inserted, one a transaction. At the end each acknowledged one is there, and none that
//! failed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::workload::{DEADLINE, Executed, Outcome, SERVER, Server, Workload};
use crate::support::random::Random;

pub const TABLE: &str = "create table numbers (value int primary key)";

/// The workload.
#[derive(Default)]
pub struct Numbers {
    next: AtomicI32,
}

/// The insertion of a number.
pub type Number = i32;

impl Workload for Numbers {
    type Transaction = Number;
    const NAME: &str = "number";

    async fn execute(&self, session: &mut Client, _random: &mut Random) -> Executed<Number> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let insert = format!("insert into numbers values ({number}) returning {SERVER}");
        let outcome = match timeout(DEADLINE, session.simple_query(&insert)).await {
            Ok(Ok(messages)) => Outcome::Acknowledged(Server::of(&messages)),
            Ok(Err(error)) => Outcome::of_commit(&error),
            Err(_) => Outcome::Unknown("no answer".to_owned()),
        };
        Executed {
            transaction: number,
            started,
            ended: Instant::now(),
            outcome,
        }
    }
}

/// Reads the numbers that a session's server has.
pub async fn read(session: &Client) -> Result<HashSet<Number>, tokio_postgres::Error> {
    let rows = session.query("select value from numbers", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Compares the insertions with the numbers that are there; returns what contradicts the claims.
pub fn check(executed: &[Executed<Number>], present: &HashSet<Number>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut attempted = HashMap::new();
    for insertion in executed {
        let (number, outcome) = (insertion.transaction, &insertion.outcome);
        attempted.insert(number, outcome);
        match (outcome, present.contains(&number)) {
            (Outcome::Acknowledged(server), false) => {
                wrong.push(format!("{number} is lost; {server:?} acknowledged it"))
            }
            (Outcome::Failed(error), true) => {
                wrong.push(format!("{number} is there, but its insertion failed: {error}"))
            }
            _ => {}
        }
    }
    let strange = present.iter().filter(|number| !attempted.contains_key(number));
    wrong.extend(strange.map(|number| format!("{number} is there, but was never inserted")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insertion(number: Number, outcome: Outcome) -> Executed<Number> {
        Executed {
            transaction: number,
            started: Instant::now(),
            ended: Instant::now(),
            outcome,
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_and_what_failed_is_not() {
        let executed = [
            insertion(0, Outcome::Acknowledged(Server::new("10.0.0.1", "00000001", false))),
            insertion(1, Outcome::Failed("could not serialize".to_owned())),
            insertion(2, Outcome::Unknown("no answer".to_owned())),
        ];
        let wrong = |present: &[Number]| check(&executed, &present.iter().copied().collect()).join("; ");
        assert_eq!(wrong(&[0]), "");
        assert_eq!(wrong(&[0, 2]), "");
        assert!(wrong(&[2]).contains("0 is lost"));
        assert!(wrong(&[0, 1]).contains("1 is there, but its insertion failed"));
        assert!(wrong(&[0, 7]).contains("7 is there, but was never inserted"));
    }
}
