//! Steps of a host's wall clock, and the proof that its programs see them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::timeout;

use super::cluster::{Cluster, Node};
use super::faults::Kind;
use super::workload::session;
use crate::support::http::Request;
use crate::support::random::Random;
use crate::support::{Dcs, Member, wait_until};

/// Deadline for the first program that tells its time: a host that has just been repaired starts its programs.
const START: Duration = Duration::from_secs(60);
/// A long step with Kubernetes, where nothing wakes a leader's Patroni that pauses for as long as its clock went back. It is
/// longer than the timeouts of PostgreSQL's replication (60 s).
const LONG: i64 = 90;
const QUESTION: Duration = Duration::from_secs(1);
/// An HTTP date has whole seconds.
const PRECISION: f64 = 1.0;

/// Chooses a step: of this member's clock, or less often of this pgnorth's; small, or more than the ttl.
pub fn choose(random: &mut Random, dcs: Dcs, member: usize, pgnorth: usize) -> Kind {
    let member = Node::Member(member);
    let long = if dcs == Dcs::Etcd { 300 } else { LONG };
    let node = random.one_of(&[member, member, Node::Pgnorth(pgnorth)]);
    Kind::StepClock(node, random.one_of(&[-long, -25, -2, 2, 25, long]))
}

/// Steps the clock of a node; returns when its programs that answer have told the stepped time, at least one of them.
pub async fn step(cluster: &Cluster, node: Node, seconds: i64) {
    cluster.host(node).step_clock(seconds);
    let told = wait_until("a program tells its time", START, async || {
        let told = tell(cluster, node, seconds as f64).await;
        (!told.is_empty()).then_some(told)
    })
    .await;
    eprintln!("  {} told the stepped time", told.join(" and "));
}

/// Asks the programs of a node for their time; returns the names of those that answer. Panics if one is not stepped.
async fn tell(cluster: &Cluster, node: Node, seconds: f64) -> Vec<&'static str> {
    let mut told = Vec::new();
    let mut note = |name, before: f64, time: Option<f64>| {
        if let Some(time) = time {
            let stepped = before + seconds - PRECISION..=now() + seconds;
            assert!(stepped.contains(&time), "{name}'s time is {time}, not in {stepped:?}");
            told.push(name);
        }
    };
    match node {
        Node::Member(number) => {
            let member = cluster.rig.member(number);
            note("Patroni", now(), patroni(member).await);
            note(
                "PostgreSQL",
                now(),
                timeout(QUESTION, postgresql(member)).await.ok().flatten(),
            );
        }
        Node::Pgnorth(number) => note("pgnorth", now(), pgnorth(cluster, number).await),
        Node::Dcs(_) => unreachable!("no clock of the DCS is stepped"),
    }
    told
}

/// Returns the time by the REST API of Patroni.
async fn patroni(member: &Member) -> Option<f64> {
    let answer = member.get("/patroni").await.ok()?;
    let date = rfc2822::parse(answer.header("Date")?).expect("an HTTP date");
    Some(seconds_of(date.timestamp()))
}

async fn postgresql(member: &Member) -> Option<f64> {
    let session = session(member.address()).await.ok()?;
    let time = "select extract(epoch from clock_timestamp())::float8";
    Some(session.query_one(time, &[]).await.ok()?.get(0))
}

async fn pgnorth(cluster: &Cluster, number: usize) -> Option<f64> {
    let url = cluster.pgnorths[number].url("/status");
    let status = cluster.rig.http().ask(&Request::get(&url)).await.ok()?.json();
    let at = status["at"].as_str().expect("the status has a time");
    Some(seconds_of(at.parse().expect("a time stamp")))
}

/// Returns the machine's time.
fn now() -> f64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.expect("after 1970").as_secs_f64()
}

fn seconds_of(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
