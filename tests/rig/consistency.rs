//! Two pgnorths at once in front of one cluster, while members, the DCS and pgnorths are killed, frozen, stopped and cut from
//! each other, and clocks are stepped. As in Patroni's own Jepsen test, every acknowledged write has to be there at the end;
//! as Elle does it, the transactions of another history have to have an order in which they can have run one by one.
//!
//! `make test-consistency` is the campaign. docs/internals/consistency.md has the claims and the figures.

mod claims;
mod clocks;
mod cluster;
mod dcs;
mod faults;
mod history;
mod lists;
mod lock;
mod primaries;
mod serializability;
mod set;
mod soak;
mod tpcb;
mod trial;
mod usage;
mod watch;
mod workload;

use std::time::Duration;

use crate::support::Dcs;
use crate::support::random::{Random, number, seed};
use cluster::Node;
use faults::{Fault, Kind, Part, Shape};
use trial::Trial;

#[tokio::test]
async fn two_pgnorths_lose_no_write_to_four_faults() {
    let mut trial = Trial::start(1, Dcs::Etcd).await;
    let primary = trial.primary();
    let alone = Node::Pgnorth(1);
    let cut = [(alone, Node::Member(primary)), (Node::Member(primary), alone)].to_vec();
    for kind in [
        Kind::Kill(Part::Pgnorth(0)),
        Kind::Cut(Shape::Alone, cut),
        Kind::StepClock(Node::Member(primary), 300),
        Kind::Switchover,
    ] {
        let lasts = Duration::from_secs(2);
        trial.endure(Fault { kind, lasts }).await;
    }
    trial.finish().await;
}

/// PGNORTH_FAULTS is the number of faults of a part, PGNORTH_PARTS the number of parts. Each part has a cluster of its own,
/// and the next seed; PGNORTH_SEED is the first. PGNORTH_DCS is etcd or kubernetes.
#[tokio::test]
#[ignore = "takes half an hour for 100 faults: make test-consistency"]
async fn campaign() {
    let faults = number("PGNORTH_FAULTS").unwrap_or(100);
    let first = seed();
    for seed in first..first + number("PGNORTH_PARTS").unwrap_or(1) {
        eprintln!("{faults} faults, PGNORTH_SEED={seed}");
        let mut random = Random(seed);
        let mut trial = Trial::start(seed, dcs::of_environment()).await;
        for index in 1..=faults {
            eprint!("{index}: ");
            trial.endure(trial.choose(&mut random)).await;
        }
        trial.finish().await;
    }
}
