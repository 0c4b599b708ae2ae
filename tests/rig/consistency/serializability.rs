//! The check of a list-append history (pure), as in Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations" (2020). Each value is appended once, so that the lists at the end show the order of all
//! appends. From it follow the dependencies of the transactions, which form no cycle if they can have run one by one.

mod cycles;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;

use cycles::{Dependency, Edge, cycle};

pub type Key = i32;
pub type Value = i32;

/// A transaction, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub operations: Vec<Operation>,
    pub fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Append(Key, Value),
    Read(Key, Vec<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Aborted,
    /// Committed if one of its values is in a list at the end.
    Unknown,
}

/// The lists at the end.
pub type Lists = HashMap<Key, Vec<Value>>;

/// A contradiction. Numbers are those of the transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// A committed value is not in its list at the end.
    Lost { transaction: usize, key: Key, value: Value },
    /// A value is in a list twice.
    Duplicate { key: Key, value: Value },
    /// A value is in a list although no transaction appended it.
    Unwritten { key: Key, value: Value },
    /// A transaction does not read what it appended or read itself.
    Internal { transaction: usize, key: Key },
    /// A read list is not the beginning of the list at the end.
    Order { transaction: usize, key: Key },
    /// G1a: a value of an aborted transaction is in a list.
    AbortedRead { transaction: usize, key: Key, value: Value },
    /// G1b: a read list ends amid the appends of another transaction.
    IntermediateRead { transaction: usize, key: Key },
    /// G0, G1c, G-single or G2: the transactions of a cycle depend on each other.
    Cycle(Vec<Edge>),
}

/// The history, with indices.
struct History<'a> {
    transactions: &'a [Transaction],
    lists: &'a Lists,
    writers: HashMap<(Key, Value), usize>,
    committed: Vec<bool>,
}

/// Returns the contradictions of a history.
pub fn check(transactions: &[Transaction], lists: &Lists) -> Vec<Anomaly> {
    let history = History::new(transactions, lists);
    let mut anomalies = history.of_lists();
    for (number, transaction) in transactions.iter().enumerate() {
        if history.committed[number] {
            anomalies.extend(history.of_committed(number, transaction));
        }
    }
    anomalies.extend(cycle(transactions.len(), &history.dependencies()).map(Anomaly::Cycle));
    anomalies
}

impl<'a> History<'a> {
    fn new(transactions: &'a [Transaction], lists: &'a Lists) -> Self {
        let present: HashSet<(Key, Value)> = (lists.iter())
            .flat_map(|(key, values)| values.iter().map(move |value| (*key, *value)))
            .collect();
        let is_committed = |transaction: &Transaction| match transaction.fate {
            Fate::Committed => true,
            Fate::Aborted => false,
            Fate::Unknown => transaction.appends().any(|append| present.contains(&append)),
        };
        let numbered = transactions.iter().enumerate();
        let appends =
            numbered.flat_map(|(number, transaction)| transaction.appends().map(move |append| (append, number)));
        Self {
            transactions,
            lists,
            writers: appends.collect(),
            committed: transactions.iter().map(is_committed).collect(),
        }
    }

    fn list(&self, key: Key) -> &[Value] {
        self.lists.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Returns the contradictions of the lists at the end with the appends.
    fn of_lists(&self) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        for (&key, values) in self.lists {
            let mut seen = HashSet::new();
            for &value in values {
                match self.writers.get(&(key, value)) {
                    None => anomalies.push(Anomaly::Unwritten { key, value }),
                    Some(&transaction) if !self.committed[transaction] => {
                        anomalies.push(Anomaly::AbortedRead {
                            transaction,
                            key,
                            value,
                        });
                    }
                    Some(_) if !seen.insert(value) => anomalies.push(Anomaly::Duplicate { key, value }),
                    Some(_) => {}
                }
            }
        }
        anomalies
    }

    /// Returns the contradictions of one committed transaction.
    fn of_committed(&self, number: usize, transaction: &Transaction) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        // The list of each key, as far as the transaction itself determines it: its beginning, if it was read, and its end.
        let mut known: HashMap<Key, (Option<Vec<Value>>, Vec<Value>)> = HashMap::new();
        for operation in &transaction.operations {
            match operation {
                Operation::Append(key, value) => {
                    known.entry(*key).or_default().1.push(*value);
                    if !self.list(*key).contains(value) {
                        anomalies.push(Anomaly::Lost {
                            transaction: number,
                            key: *key,
                            value: *value,
                        });
                    }
                }
                Operation::Read(key, values) => {
                    let (read, appended) = known.entry(*key).or_default();
                    let before = values.strip_suffix(appended.as_slice());
                    if before.is_none() || read.as_ref().is_some_and(|read| before != Some(read.as_slice())) {
                        anomalies.push(Anomaly::Internal {
                            transaction: number,
                            key: *key,
                        });
                    }
                    *read = before.map(<[Value]>::to_vec);
                    anomalies.extend(self.of_read(number, *key, values));
                }
            }
        }
        anomalies
    }

    fn of_read(&self, transaction: usize, key: Key, values: &[Value]) -> Option<Anomaly> {
        for &value in values {
            match self.writers.get(&(key, value)) {
                None => return Some(Anomaly::Unwritten { key, value }),
                Some(&writer) if !self.committed[writer] => {
                    return Some(Anomaly::AbortedRead {
                        transaction: writer,
                        key,
                        value,
                    });
                }
                Some(_) => {}
            }
        }
        if !self.list(key).starts_with(values) {
            return Some(Anomaly::Order { transaction, key });
        }
        let &last = values.last()?;
        let writer = *self.writers.get(&(key, last))?;
        let is_amid = writer != transaction && self.transactions[writer].last_append(key) != Some(last);
        is_amid.then_some(Anomaly::IntermediateRead { transaction, key })
    }

    /// Returns the dependencies of committed transactions.
    fn dependencies(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        let mut depends = |from: Option<&usize>, to: Option<&usize>, by: Dependency, key: Key| {
            if let (Some(&from), Some(&to)) = (from, to)
                && from != to
            {
                edges.push(Edge { from, to, by, key });
            }
        };
        let writer = |key: Key, value: Option<&Value>| self.writers.get(&(key, *value?));
        for (&key, values) in self.lists {
            for two in values.windows(2) {
                let (earlier, later) = (writer(key, two.first()), writer(key, two.last()));
                depends(earlier, later, Dependency::WriteWrite, key);
            }
        }
        let committed = self
            .transactions
            .iter()
            .enumerate()
            .filter(|(number, _)| self.committed[*number]);
        for (number, transaction) in committed {
            let in_order = |(key, values): &(Key, &[Value])| self.list(*key).starts_with(values);
            for (key, values) in transaction.external_reads().filter(in_order) {
                depends(writer(key, values.last()), Some(&number), Dependency::WriteRead, key);
                // The next append overwrote what was read.
                let next = writer(key, self.list(key).get(values.len()));
                depends(Some(&number), next, Dependency::ReadWrite, key);
            }
        }
        edges
    }
}

impl Transaction {
    fn appends(&self) -> impl Iterator<Item = (Key, Value)> {
        self.operations.iter().filter_map(|operation| match operation {
            Operation::Append(key, value) => Some((*key, *value)),
            Operation::Read(..) => None,
        })
    }

    fn last_append(&self, key: Key) -> Option<Value> {
        self.appends()
            .filter(|append| append.0 == key)
            .last()
            .map(|append| append.1)
    }

    /// Returns the lists that were read before an append of its own.
    fn external_reads(&self) -> impl Iterator<Item = (Key, &[Value])> {
        let mut own = HashSet::new();
        self.operations.iter().filter_map(move |operation| match operation {
            Operation::Append(key, _) => {
                own.insert(*key);
                None
            }
            Operation::Read(key, values) => (!own.contains(key)).then_some((*key, values.as_slice())),
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle(edges) => {
                write!(formatter, "{}:", cycles::name(edges))?;
                edges.iter().try_for_each(|edge| write!(formatter, " {edge}"))
            }
            other => write!(formatter, "{other:?}"),
        }
    }
}
