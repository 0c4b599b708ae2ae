//! Cycles of dependencies, and their names.

use std::collections::{HashMap, VecDeque};
use std::fmt;

/// The reason why one transaction comes after another one, from the weakest isolation level that excludes its cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// It appended after the other one.
    WriteWrite,
    /// It read what the other one appended.
    WriteRead,
    /// It appended to what the other one had read without that.
    ReadWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub by: Dependency,
    pub key: i32,
}

impl fmt::Display for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, by, key } = self;
        write!(formatter, "{from} -{by:?} of {key}-> {to}")
    }
}

/// Returns the name of a cycle's anomaly.
pub fn name(cycle: &[Edge]) -> &'static str {
    match cycle.iter().filter(|edge| edge.by == Dependency::ReadWrite).count() {
        0 if cycle.iter().all(|edge| edge.by == Dependency::WriteWrite) => "G0",
        0 => "G1c",
        1 => "G-single",
        _ => "G2",
    }
}

/// Returns a shortest cycle of the weakest kind, if there is any.
pub fn cycle(transactions: usize, edges: &[Edge]) -> Option<Vec<Edge>> {
    use Dependency::{ReadWrite, WriteRead, WriteWrite};
    let edges = in_cycles(transactions, edges);
    // The way back of each edge of one kind may use the others up to this one.
    let kinds = [
        (WriteWrite, WriteWrite),
        (WriteRead, WriteRead),
        (ReadWrite, WriteRead),
        (ReadWrite, ReadWrite),
    ];
    kinds.into_iter().find_map(|(by, back)| {
        let allowed: Vec<Edge> = edges.iter().filter(|edge| edge.by <= back).copied().collect();
        let first = edges.iter().filter(|edge| edge.by == by);
        let cycles = first.filter_map(|edge| Some([vec![*edge], path(edge.to, edge.from, &allowed)?].concat()));
        cycles.min_by_key(Vec::len)
    })
}

/// Returns the edges that are left when transactions that nothing precedes, or nothing follows, are taken away in turn. If
/// there is no cycle, none is left.
fn in_cycles(transactions: usize, edges: &[Edge]) -> Vec<Edge> {
    let forward = without_sources(transactions, edges, |edge| (edge.from, edge.to));
    without_sources(transactions, &forward, |edge| (edge.to, edge.from))
}

fn without_sources(transactions: usize, edges: &[Edge], ends: fn(&Edge) -> (usize, usize)) -> Vec<Edge> {
    let mut incoming = vec![0; transactions];
    let mut outgoing: HashMap<usize, Vec<usize>> = HashMap::new();
    for (from, to) in edges.iter().map(ends) {
        incoming[to] += 1;
        outgoing.entry(from).or_default().push(to);
    }
    let mut sources: Vec<usize> = (0..transactions).filter(|number| incoming[*number] == 0).collect();
    while let Some(source) = sources.pop() {
        for to in outgoing.remove(&source).unwrap_or_default() {
            incoming[to] -= 1;
            if incoming[to] == 0 {
                sources.push(to);
            }
        }
    }
    let is_left = |edge: &&Edge| outgoing.contains_key(&ends(edge).0);
    edges.iter().filter(is_left).copied().collect()
}

/// Returns a shortest path, by a search in breadth.
fn path(from: usize, to: usize, edges: &[Edge]) -> Option<Vec<Edge>> {
    let mut outgoing: HashMap<usize, Vec<Edge>> = HashMap::new();
    for edge in edges {
        outgoing.entry(edge.from).or_default().push(*edge);
    }
    let mut came_by: HashMap<usize, Edge> = HashMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(here) = next.pop_front() {
        if here == to {
            break;
        }
        for edge in outgoing.remove(&here).unwrap_or_default() {
            if edge.to != from && !came_by.contains_key(&edge.to) {
                came_by.insert(edge.to, edge);
                next.push_back(edge.to);
            }
        }
    }
    let mut path = Vec::new();
    let mut here = to;
    while here != from {
        let edge = *came_by.get(&here)?;
        path.push(edge);
        here = edge.from;
    }
    path.reverse();
    Some(path)
}
