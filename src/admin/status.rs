//! The status document of `/status`, its events and `pgnorth status`. Field names are an interface. `admin/collect.rs`
//! fills the fields.
//!
//! It has ages beside or instead of times, so that the reader's clock does not have to agree with the local clock.

use serde::{Deserialize, Serialize};

use crate::recorder::{Failover, OngoingChange};

/// The state of pgnorth now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This build's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// Time of the document by the local clock, RFC 3339.
    pub at: Option<String>,
    /// Time since the admin port began to serve.
    pub uptime_seconds: f64,
    /// The text of `/readyz`: `ready`, `starting: …`, `shutting down`.
    pub readiness: String,
    /// The routing state.
    pub state: StateName,
    /// Age of the routing state.
    pub state_seconds: f64,
    /// The reason, as a sentence.
    pub reason: String,
    /// The leader, whose sessions are kept; `None` if there is no leader.
    pub leader: Option<LeaderStatus>,
    /// Time since which there has been this leader, or no leader; RFC 3339.
    pub since: Option<String>,
    /// `since` as an age.
    pub since_seconds: f64,
    /// True while Patroni is paused: it then performs no automatic failover.
    pub paused: bool,
    /// The announced switchover.
    pub switchover: Option<Switchover>,
    /// The leader's lock.
    pub lock: Option<LockStatus>,
    /// All known members, by name.
    pub members: Vec<Member>,
    /// The sources of discovery.
    pub sources: Vec<Source>,
    /// The followed cluster, as far as it is known.
    #[serde(default)]
    pub cluster: ClusterStatus,
    /// Members, and URLs of `--patroni`, where another cluster answers. Discovery ignores those answers.
    #[serde(default)]
    pub foreign: Vec<ForeignAnswer>,
    /// The proxy's listeners, and the members that their clients reach; empty for `publish` and `watch`.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// The proxy's sessions; none for `publish` and `watch`.
    pub sessions: Option<Sessions>,
    /// Samples of the last ten minutes.
    pub history: Series,
    /// A change of leader that may have begun.
    pub trouble: Option<OngoingChange>,
    /// The last changes of leader, the newest first.
    pub failovers: Vec<Failover>,
}

/// The routing state, as `/leader` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// New clients go to the leader.
    Route,
    /// New clients wait.
    Hold,
    /// New clients wait, and the sessions to the primary have ended.
    Fence,
}

/// The leader, whose sessions are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Patroni's member name.
    pub member: String,
    /// Address of its PostgreSQL.
    pub address: String,
    /// Its timeline when it was verified.
    pub timeline: Option<u32>,
}

/// An announced switchover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switchover {
    /// The member to demote, if named.
    pub from: Option<String>,
    /// The member to promote, if named.
    pub to: Option<String>,
    /// The scheduled time as Patroni wrote it; `None` if the switchover is immediate.
    pub scheduled_at: Option<String>,
}

/// The leader lock and its age.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockStatus {
    /// The leader or, while there is none, the member that holds the lock.
    pub member: String,
    /// Time since the last observed renewal or, if no watch shows that this member holds the lock, since the last
    /// evidence that it leads.
    pub age_seconds: f64,
    /// Patroni's ttl. If the age exceeds it, the lock may have expired.
    pub ttl_seconds: f64,
}

/// One member. An unknown value is null.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Patroni's name.
    pub name: String,
    /// Address of its PostgreSQL.
    pub address: Option<String>,
    /// True if it is the leader, whose sessions are kept.
    pub leads: bool,
    /// True if it holds the lock.
    pub holds_lock: bool,
    /// `primary`, `replica`, `standby_leader`, … in Patroni's words.
    pub role: Option<String>,
    /// `running`, `stopping`, … in Patroni's words.
    pub state: Option<String>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// Lag behind the leader in bytes of WAL. Patroni updates it every `loop_wait`.
    pub lag_bytes: Option<u64>,
    /// The source of role and state.
    pub heard_from: Option<ReportSource>,
    /// Age of role and state. A watched status in the DCS is as old as its last change, and still current.
    pub heard_seconds: Option<f64>,
    /// The error of the last request to its REST API, if that request failed.
    pub silent: Option<String>,
}

/// The sources of a member's role and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportSource {
    /// The member's own REST API.
    Rest,
    /// Its status in the DCS, which pgnorth watches: an annotation of its pod, or its key in etcd.
    Pod,
    /// An answer to `/cluster`, which lists all members.
    Cluster,
}

/// A source of discovery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// `kubernetes`, `etcd` or `patroni`.
    pub name: String,
    /// True if it answers.
    pub up: bool,
    /// Its activity, or the error.
    pub detail: String,
}

/// A cluster's identity, as its members report it.
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
    /// Age of its last answer.
    pub heard_seconds: f64,
}

/// A listener for PostgreSQL clients, and its route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteStatus {
    /// `primary`, `replica`, `read-only`, …
    pub route: String,
    /// The server on a member that sessions go to: `postgres`, `proxy`, or a port.
    #[serde(default)]
    pub target: String,
    /// The address that clients connect to.
    pub address: String,
    /// True if new clients go to a member; false while they wait.
    pub open: bool,
    /// The reason, as a sentence.
    pub reason: String,
    /// The members. For a route to the primary, only the member that sessions go to.
    pub members: Vec<RouteMember>,
}

/// A member, as one route treats it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteMember {
    /// Patroni's name.
    pub name: String,
    /// The address that its sessions go to: PostgreSQL's, or the pooler's. `None` if it is unknown.
    pub address: Option<String>,
    /// The treatment of clients and sessions.
    pub treatment: Treatment,
    /// The kind of reason why it gets no new clients, as in `pgnorth_route_member_unfit`.
    pub reason_kind: Option<String>,
    /// The reason why it gets no new clients, as a sentence.
    pub reason: Option<String>,
    /// Sessions to it on this route, including clients that dial it now.
    pub sessions: u64,
}

/// The treatment of a member's clients and sessions on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// It gets new clients.
    Fit,
    /// It gets no new clients, and its sessions stay.
    Closed,
    /// It gets no new clients, and its sessions end.
    Out,
}

/// The proxy's sessions now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// Clients that wait for a leader or a fit replica.
    pub held: u64,
    /// Sessions that are being connected to a member.
    pub dialling: u64,
    /// Sessions that forward bytes.
    pub forwarding: u64,
    /// The maximum of open sessions.
    pub max: u64,
    /// Wait time of the longest-held client; `None` if none is held.
    pub oldest_wait_seconds: Option<f64>,
}

/// One value a second, the oldest first; at most 600.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// Bytes per second from clients to members.
    pub to_leader: Vec<u64>,
    /// Bytes per second from members to clients.
    pub to_client: Vec<u64>,
    /// Open sessions, including held clients.
    pub sessions: Vec<u64>,
    /// Held clients.
    pub held: Vec<u64>,
}
