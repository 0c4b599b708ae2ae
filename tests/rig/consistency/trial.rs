//! One part of the campaign: the cluster, the clients of both pgnorths, faults in a row, and all claims at the end.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::claims::{Longest, Look, Span, longest_disagreement, longest_without_route, without};
use super::cluster::{Cluster, Pgnorth};
use super::faults::Fault;
use super::history::History;
use super::lists::{self, Appends, Operations};
use super::primaries::{self, Acknowledged};
use super::set::{self, Number, Numbers};
use super::watch::Watch;
use super::workload::{Clients, Executed, Outcome};
use crate::support::random::Random;
use crate::support::{Dcs, session, wait_until};

/// The time within which each pgnorth sends clients to a primary that is healthy and reachable, and both agree.
const CLAIM: Duration = Duration::from_secs(1);
/// Allowance for two cores that three members, the DCS, the clients and the watch share with other tests.
const ALLOWANCE: Duration = Duration::from_secs(2);
/// A deadline against hanging; the claims are checked at the end. A member that was killed recovers, rewinds and streams
/// again before strict mode lets the primary acknowledge a write. A Patroni whose clock went back by 300 s pauses for so
/// long, unless its DCS wakes it (`schedule_next_run`).
const HEALTHY: Duration = Duration::from_secs(240 + 300);
/// Time without a fault before the next one.
const CALM: Duration = Duration::from_secs(1);

pub struct Trial {
    numbers: Clients<Numbers>,
    lists: Clients<Appends>,
    watch: Watch,
    /// Spans in which faults could keep a pgnorth from its work or from a host.
    struck: Vec<Span>,
    faults: usize,
    began: Instant,
    cluster: Cluster,
    /// Dropped last: it names what is kept of a failure.
    history: Arc<History>,
    seed: u64,
}

impl Trial {
    /// Starts the cluster, the watch and the clients; returns when both pgnorths send clients to the primary.
    pub async fn start(seed: u64, dcs: Dcs) -> Self {
        let history = Arc::new(History::begin(seed));
        // With one API server, each of its outages demotes the primary without it.
        let failsafe = dcs != Dcs::Etcd && seed % 2 == 1;
        eprintln!("{dcs:?}, failsafe_mode {failsafe}");
        let cluster = Cluster::start(history.folder(), dcs, failsafe).await;
        let primary = cluster.rig.leader().await;
        for table in [set::TABLE, lists::TABLE] {
            primary.psql(table).await.expect("make the tables");
        }
        let watch = Watch::start(&cluster).await;
        let addresses: Vec<_> = cluster.pgnorths.iter().map(|pgnorth| pgnorth.address()).collect();
        // The choice of the faults does not depend on the clients.
        let random = &mut Random(!seed);
        let trial = Self {
            numbers: Clients::start(Numbers::default(), &addresses, random, &history),
            lists: Clients::start(Appends::default(), &addresses, random, &history),
            watch,
            struck: Vec::new(),
            faults: 0,
            began: Instant::now(),
            cluster,
            history,
            seed,
        };
        recovered(&trial.cluster, &trial.watch).await;
        trial
    }

    /// Returns the number of the primary; of the first member, if there is none now.
    pub fn primary(&self) -> usize {
        self.watch.healthy_since(self.began).unwrap_or(0)
    }

    /// Chooses the next fault.
    pub fn choose(&self, random: &mut Random) -> Fault {
        Fault::choose(random, &self.cluster, self.primary())
    }

    /// Applies a fault and repairs it; returns when the cluster is healthy and both pgnorths send clients to its primary.
    pub async fn endure(&mut self, fault: Fault) {
        eprintln!("{fault}, {:.1?} after the beginning", self.began.elapsed());
        let from = Instant::now();
        fault.strike(&self.cluster).await;
        sleep(fault.lasts).await;
        fault.heal(&self.cluster);
        self.faults += 1;
        self.history.note("fault", from, json!(format!("{fault:?}")));
        if fault.strikes_pgnorth() {
            let to = Instant::now();
            self.struck.push(Span { from, to });
        }
        recovered(&self.cluster, &self.watch).await;
        sleep(CALM).await;
    }

    fn server(&self, member: usize) -> Ipv4Addr {
        self.cluster.rig.member(member).ip()
    }

    /// Ends the clients, checks every claim, and prints the figures.
    pub async fn finish(mut self) {
        recovered(&self.cluster, &self.watch).await;
        let calm = Span {
            from: self.began,
            to: Instant::now(),
        };
        let (numbers, lists) = tokio::join!(self.numbers.finish(), self.lists.finish());
        let (routeless, disagreements) = (self.times_without_route(), self.disagreements(calm));
        eprintln!(
            "seed {}: {} faults in {:?}",
            self.seed,
            self.faults,
            self.began.elapsed()
        );
        eprintln!("numbers: {}", outcomes(&numbers));
        eprintln!("lists: {}", outcomes(&lists));
        eprintln!("without a route: {}", self.summary(&routeless));
        eprintln!("in disagreement: {}", self.summary(&disagreements));

        let mut wrong = self.check_data(&numbers, &lists).await;
        let all = [acknowledged(&numbers), acknowledged(&lists)].concat();
        wrong.extend(primaries::check(&all));
        wrong.extend(self.too_long("without a route", &routeless));
        wrong.extend(self.too_long("in disagreement", &disagreements));
        assert!(wrong.is_empty(), "seed {}: {wrong:#?}", self.seed);
    }

    /// Reads all data from the primary, directly and through both pgnorths, and compares them with the histories.
    async fn check_data(&self, numbers: &[Executed<Number>], lists: &[Executed<Operations>]) -> Vec<String> {
        let mut addresses = vec![self.cluster.rig.leader().await.address()];
        addresses.extend(self.cluster.pgnorths.iter().map(Pgnorth::address));
        let mut wrong = Vec::new();
        for address in addresses {
            let session = session(address).await.expect("a session for the last read");
            let present = set::read(&session).await.expect("the last read of the numbers");
            let at_end = lists::read(&session).await.expect("the last read of the lists");
            let of_this = [set::check(numbers, &present), lists::contradictions(lists, &at_end)].concat();
            wrong.extend(of_this.iter().map(|wrong| format!("read from {address}: {wrong}")));
        }
        wrong
    }

    /// Returns the longest time of each pgnorth without a route to the primary, in each span in which that was healthy and
    /// reachable.
    fn times_without_route(&self) -> Vec<Longest> {
        let (looks, healthy) = (self.watch.looks(), self.watch.healthy());
        let spans = healthy.iter().enumerate().flat_map(|(member, spans)| {
            let server = self.server(member);
            without(spans, &self.struck).into_iter().map(move |span| (span, server))
        });
        let times = spans.flat_map(|(span, server)| {
            let of_one = |looks: &Vec<Look>| longest_without_route(span, server, looks);
            looks.iter().filter_map(of_one).collect::<Vec<_>>()
        });
        times.collect()
    }

    /// Returns the longest disagreement in each span in which no fault struck a pgnorth.
    fn disagreements(&self, whole: Span) -> Vec<Longest> {
        let looks = self.watch.looks();
        let spans = without(&[whole], &self.struck).into_iter();
        spans
            .filter_map(|span| longest_disagreement(span, &looks[0], &looks[1]))
            .collect()
    }

    /// Describes the longest times of all spans, and names those that were longer than the claim.
    fn summary(&self, times: &[Longest]) -> String {
        let mut lasted: Vec<_> = times.iter().map(|longest| longest.lasted).collect();
        lasted.sort();
        let late = times.iter().filter(|longest| longest.lasted > CLAIM);
        let late: Vec<_> = late
            .map(|late| format!("{:.1?} after {:.1?}", late.lasted, late.from - self.began))
            .collect();
        format!(
            "{} spans, median {:.1?}, longest {:.1?}, {} longer than {CLAIM:?}: {}",
            lasted.len(),
            lasted.get(lasted.len() / 2).copied().unwrap_or_default(),
            lasted.last().copied().unwrap_or_default(),
            late.len(),
            late.join(", ")
        )
    }

    fn too_long(&self, what: &str, times: &[Longest]) -> Vec<String> {
        let late = times.iter().filter(|longest| longest.lasted > CLAIM + ALLOWANCE);
        let text = |longest: &Longest| {
            let from = longest.from - self.began;
            format!("a pgnorth was {what} for {:?}, from {from:?} on", longest.lasted)
        };
        late.map(text).collect()
    }
}

/// Waits until a member is a healthy primary and both pgnorths send clients to it; returns its number.
pub async fn recovered(cluster: &Cluster, watch: &Watch) -> usize {
    let from = Instant::now();
    wait_until("both pgnorths send clients to a healthy primary", HEALTHY, async || {
        let primary = watch.healthy_since(from)?;
        let server = Some(cluster.rig.member(primary).ip());
        watch.routes().iter().all(|route| *route == server).then_some(primary)
    })
    .await
}

fn acknowledged<T>(executed: &[Executed<T>]) -> Vec<Acknowledged<'_>> {
    let acknowledged = executed.iter().filter_map(|executed| match &executed.outcome {
        Outcome::Acknowledged(server) => Some(Acknowledged {
            started: executed.started,
            ended: executed.ended,
            server,
        }),
        _ => None,
    });
    acknowledged.collect()
}

fn outcomes<T>(executed: &[Executed<T>]) -> String {
    let count = |is: fn(&Outcome) -> bool| executed.iter().filter(|executed| is(&executed.outcome)).count();
    format!(
        "{} acknowledged, {} failed, {} unknown",
        count(|outcome| matches!(outcome, Outcome::Acknowledged(_))),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        count(|outcome| matches!(outcome, Outcome::Unknown(_))),
    )
}
