//! The faults: the choice of each by a seed, its cause, and its repair.

use std::fmt;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::clocks;
use super::cluster::{Cluster, Node, PGNORTHS};
use super::dcs;
use crate::support::Member;
use crate::support::random::Random;

/// Time for a request that a fault may leave without an answer.
const REQUEST: Duration = Duration::from_secs(10);

/// A fault, and the time for which it lasts.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub lasts: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Patroni is asked to move the leader.
    Switchover,
    /// SIGKILL; it is started again at the end.
    Kill(Part),
    /// SIGSTOP; SIGCONT at the end.
    Freeze(Part),
    /// SIGTERM; it is started again at the end.
    Stop(Part),
    /// Patroni restarts PostgreSQL.
    RestartPostgres(usize),
    /// Packets of each pair's first node do not reach its second one.
    Cut(Shape, Vec<(Node, Node)>),
    /// The host's wall clock goes forward by these seconds, or back; and the other way at the end.
    StepClock(Node, i64),
}

/// The part that a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Postgres(usize),
    Patroni(usize),
    /// Both.
    Host(usize),
    Dcs(usize),
    Pgnorth(usize),
}

/// The shape of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two halves do not reach each other.
    Halves,
    /// Each node reaches a majority, and no two the same one.
    Ring,
    /// One half does not hear the other one, which hears it.
    OneWay,
    /// One node is cut off from all others.
    Alone,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // The history has all pairs.
            Kind::Cut(shape, pairs) => write!(formatter, "Cut({shape:?}, {} pairs, {:?})", pairs.len(), pairs[0])?,
            kind => write!(formatter, "{kind:?}")?,
        }
        write!(formatter, " for {:?}", self.lasts)
    }
}

impl Fault {
    /// Chooses a fault. Half of those that strike a member strike the primary.
    pub fn choose(random: &mut Random, cluster: &Cluster, primary: usize) -> Self {
        let member = match random.below(2) {
            0 => primary,
            _ => random.below(3),
        };
        let (server, pgnorth) = (random.below(dcs::servers(&cluster.rig)), random.below(PGNORTHS));
        let part = random.one_of(&[
            Part::Postgres(member),
            Part::Patroni(member),
            Part::Host(member),
            Part::Dcs(server),
            Part::Pgnorth(pgnorth),
        ]);
        let kind = match random.below(12) {
            0 => Kind::Switchover,
            1 | 2 => Kind::Kill(part),
            3 | 4 => Kind::Freeze(part),
            5 => match part {
                Part::Postgres(member) => Kind::RestartPostgres(member),
                part => Kind::Stop(part),
            },
            6 => cut(Shape::Halves, random, cluster, primary),
            7 => cut(Shape::Ring, random, cluster, primary),
            8 => cut(Shape::OneWay, random, cluster, primary),
            9 => cut(Shape::Alone, random, cluster, primary),
            _ => clocks::choose(random, cluster.rig.dcs(), member, pgnorth),
        };
        // With ttl 20, most end before the lock can expire, and some outlast a failover.
        let seconds = random.one_of(&[1, 2, 4, 8, 12, 30]);
        Self {
            kind,
            lasts: Duration::from_secs(seconds),
        }
    }

    /// Returns true if the fault may keep a pgnorth from its work or from a host.
    pub fn strikes_pgnorth(&self) -> bool {
        match &self.kind {
            Kind::Kill(part) | Kind::Freeze(part) | Kind::Stop(part) => matches!(part, Part::Pgnorth(_)),
            Kind::Cut(..) => true,
            // A pgnorth reads the monotonic clock.
            Kind::Switchover | Kind::RestartPostgres(_) | Kind::StepClock(..) => false,
        }
    }

    /// Returns true if the fault ends a pgnorth.
    pub fn ends_pgnorth(&self) -> bool {
        matches!(self.kind, Kind::Kill(Part::Pgnorth(_)) | Kind::Stop(Part::Pgnorth(_)))
    }

    /// Applies the fault.
    pub async fn strike(&self, cluster: &Cluster) {
        let (rig, pgnorths) = (&cluster.rig, &cluster.pgnorths);
        match &self.kind {
            Kind::Switchover => switch_over(cluster).await,
            Kind::RestartPostgres(member) => request(rig.member(*member), "/restart").await,
            Kind::Cut(_, pairs) => cluster.cut(pairs),
            Kind::StepClock(node, seconds) => clocks::step(cluster, *node, *seconds).await,
            Kind::Kill(part) => match *part {
                Part::Postgres(member) => drop(rig.member(member).postmaster().map(kill)),
                Part::Patroni(member) => rig.member(member).kill_patroni(),
                Part::Host(member) => rig.member(member).kill_host(),
                Part::Dcs(number) => dcs::kill(rig, number),
                Part::Pgnorth(number) => pgnorths[number].kill(),
            },
            Kind::Freeze(part) => match *part {
                Part::Postgres(member) => rig.member(member).freeze_postgres(),
                Part::Patroni(member) => rig.member(member).freeze_patroni(),
                Part::Host(member) => {
                    rig.member(member).freeze_patroni();
                    rig.member(member).freeze_postgres();
                }
                Part::Dcs(number) => dcs::signal(rig, number, Signal::STOP),
                Part::Pgnorth(number) => pgnorths[number].signal(Signal::STOP),
            },
            Kind::Stop(part) => match *part {
                // Patroni stops PostgreSQL before it ends.
                Part::Postgres(member) | Part::Patroni(member) | Part::Host(member) => {
                    rig.member(member).stop_patroni_gracefully().await;
                }
                Part::Dcs(number) => dcs::signal(rig, number, Signal::TERM),
                Part::Pgnorth(number) => pgnorths[number].signal(Signal::TERM),
            },
        }
    }

    /// Repairs the fault; waits for nothing.
    pub fn heal(&self, cluster: &Cluster) {
        let (rig, pgnorths) = (&cluster.rig, &cluster.pgnorths);
        match &self.kind {
            Kind::Switchover | Kind::RestartPostgres(_) | Kind::Kill(Part::Postgres(_)) => {}
            Kind::Cut(..) => cluster.reconnect(),
            Kind::StepClock(node, _) => cluster.host(*node).step_clock(0),
            Kind::Freeze(part) => match *part {
                Part::Postgres(member) => rig.member(member).thaw_postgres(),
                Part::Patroni(member) => rig.member(member).thaw_patroni(),
                Part::Host(member) => {
                    rig.member(member).thaw_postgres();
                    rig.member(member).thaw_patroni();
                }
                Part::Dcs(number) => dcs::signal(rig, number, Signal::CONT),
                Part::Pgnorth(number) => pgnorths[number].signal(Signal::CONT),
            },
            Kind::Kill(part) | Kind::Stop(part) => match *part {
                Part::Postgres(member) | Part::Patroni(member) | Part::Host(member) => rig.member(member).start(),
                Part::Dcs(number) => dcs::start_again(rig, number),
                Part::Pgnorth(number) => {
                    pgnorths[number].kill();
                    pgnorths[number].start_again();
                }
            },
        }
    }
}

fn cut(shape: Shape, random: &mut Random, cluster: &Cluster, primary: usize) -> Kind {
    let mut nodes = cluster.nodes();
    random.shuffle(&mut nodes);
    let count = nodes.len();
    let between = |first: &[Node], second: &[Node]| -> Vec<(Node, Node)> {
        let pairs = first.iter().flat_map(|from| second.iter().map(move |to| (*from, *to)));
        pairs.collect()
    };
    let both_ways = |first: &[Node], second: &[Node]| [between(first, second), between(second, first)].concat();
    let (first, second) = nodes.split_at(count / 2);
    let pairs = match shape {
        Shape::Halves => both_ways(first, second),
        Shape::OneWay => between(first, second),
        Shape::Alone => {
            let pgnorth = Node::Pgnorth(random.below(PGNORTHS));
            let alone = random.one_of(&[nodes[0], Node::Member(primary), pgnorth]);
            nodes.retain(|node| *node != alone);
            both_ways(&[alone], &nodes)
        }
        Shape::Ring => {
            // A majority: itself and as many neighbours on either side.
            let reach = count.div_ceil(4);
            let distance = |one: usize, other: usize| one.abs_diff(other).min(count - one.abs_diff(other));
            let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
            let cut = pairs.filter(|(from, to)| distance(*from, *to) > reach);
            cut.map(|(from, to)| (nodes[from], nodes[to])).collect()
        }
    };
    Kind::Cut(shape, pairs)
}

async fn switch_over(cluster: &Cluster) {
    let Some(leader) = cluster.rig.find_leader().await else {
        return;
    };
    let order = serde_json::json!({"leader": leader.name()});
    // Patroni refuses a switchover without a synchronous standby.
    let _ = timeout(REQUEST, leader.send("POST", "/switchover", &order)).await;
}

async fn request(member: &Member, path: &str) {
    let _ = timeout(REQUEST, member.send("POST", path, &serde_json::json!({}))).await;
}

fn kill(process: u32) {
    crate::support::process::send(process, Signal::KILL);
}
