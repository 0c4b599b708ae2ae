//! The status document: `/status`, the same as an event, and what `pgnorth status` reads. Field names are an interface; how the fields are filled stands
//! in `admin/collect.rs`.
//!
//! Ages are given, not times: a reader needs no clock that agrees with this one.

use serde::{Deserialize, Serialize};

use crate::recorder::{Failover, Trouble};

/// What pgnorth knows and does now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This build's version.
    pub version: String,
    /// The commit it was made from.
    pub commit: String,
    /// When this was written, RFC 3339, by the local clock.
    pub at: Option<String>,
    /// Since the process began to serve its admin port.
    pub uptime_seconds: f64,
    /// As `/readyz` says: `ready`, `starting: …`, `shutting down`.
    pub readiness: String,
    /// What is done with clients.
    pub state: StateName,
    /// For how long.
    pub state_seconds: f64,
    /// Why, as a sentence.
    pub reason: String,
    /// The member whose sessions may live.
    pub leader: Option<LeaderStatus>,
    /// When its time began, or that without a leader; RFC 3339.
    pub since: Option<String>,
    /// The same as an age.
    pub since_seconds: f64,
    /// Nobody is promoted by itself.
    pub paused: bool,
    /// A switchover that is announced.
    pub switchover: Option<Switchover>,
    /// The leader's right to lead.
    pub lock: Option<LockStatus>,
    /// Every member known, by name.
    pub members: Vec<Member>,
    /// Where the news comes from.
    pub sources: Vec<Source>,
    /// The cluster that is followed, as far as it is known.
    #[serde(default)]
    pub cluster: ClusterStatus,
    /// Members, and URLs of `--patroni`, where another cluster answers. What it says counts for nothing.
    #[serde(default)]
    pub foreign: Vec<ForeignAnswer>,
    /// The proxy's sessions; none for a publisher.
    pub sessions: Option<Sessions>,
    /// The last ten minutes.
    pub history: Series,
    /// A change of leader that may be under way.
    pub trouble: Option<Trouble>,
    /// The last changes of leader, the newest first.
    pub failovers: Vec<Failover>,
}

/// The state, as `/leader` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// New clients go to the leader.
    Route,
    /// New clients wait.
    Hold,
    /// New clients wait, and every session ended.
    Fence,
}

/// Whom sessions go to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Patroni's member name.
    pub member: String,
    /// Where its PostgreSQL listens.
    pub address: String,
    /// Its timeline, as it said when it was verified.
    pub timeline: Option<u32>,
}

/// An announced switchover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switchover {
    /// To be demoted, if named.
    pub from: Option<String>,
    /// To be promoted, if named.
    pub to: Option<String>,
    /// When, as written; none for at once.
    pub scheduled_at: Option<String>,
}

/// How long the leader may lead without a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockStatus {
    /// Who has it.
    pub member: String,
    /// Since the lock was last seen renewed, or the member's last word, whichever is later.
    pub age_seconds: f64,
    /// Patroni's ttl. An age above it means that the lock has run out.
    pub ttl_seconds: f64,
}

/// One member. What is not known is null.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Patroni's name.
    pub name: String,
    /// Where its PostgreSQL listens.
    pub address: Option<String>,
    /// Sessions go to it, or may live on it.
    pub leads: bool,
    /// The lock names it.
    pub holds_lock: bool,
    /// `primary`, `replica`, `standby_leader`, … in Patroni's words.
    pub role: Option<String>,
    /// `running`, `stopping`, … in Patroni's words.
    pub state: Option<String>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// How far it is behind the leader, in bytes of WAL. As old as the members' own words: Patroni writes them every `loop_wait`.
    pub lag_bytes: Option<u64>,
    /// Who said role and state.
    pub heard_from: Option<ReportSource>,
    /// How old that is. A watched pod's status is as old as its last change, and still true.
    pub heard_seconds: Option<f64>,
    /// Why its REST API does not answer, where it was asked and did not.
    pub silent: Option<String>,
}

/// Who told of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportSource {
    /// Its own REST API.
    Rest,
    /// The status annotation of its pod, which is watched.
    Pod,
    /// Another member, in `/cluster`.
    Cluster,
}

/// A source of discovery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// `kubernetes` or `patroni`.
    pub name: String,
    /// It answers.
    pub up: bool,
    /// What it does, or why it does not answer.
    pub detail: String,
}

/// A cluster, as its members tell it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Patroni's scope.
    pub scope: Option<String>,
    /// PostgreSQL's system identifier.
    pub system: Option<String>,
}

/// An answer of another cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignAnswer {
    /// The member, or the URL.
    pub at: String,
    /// The cluster that answers there.
    pub cluster: ClusterStatus,
    /// How old its last answer is.
    pub heard_seconds: f64,
}

/// The proxy's sessions now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// Clients that wait for a leader.
    pub held: u64,
    /// The leader is being dialled.
    pub dialling: u64,
    /// Bytes go both ways.
    pub forwarding: u64,
    /// The cap.
    pub max: u64,
    /// How long the client has waited that came first; none while nobody waits.
    pub oldest_wait_seconds: Option<f64>,
}

/// One value a second, the oldest first; at most 600.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// Bytes per second to the leader.
    pub to_leader: Vec<u64>,
    /// Bytes per second to clients.
    pub to_client: Vec<u64>,
    /// Sessions open, waiting ones included.
    pub sessions: Vec<u64>,
    /// Clients that wait.
    pub held: Vec<u64>,
}
