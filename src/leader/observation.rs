//! The parsed statements of the sources, as values only. Each source in `discovery` has its own parsing; `decide`
//! draws the conclusions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::leader::identity::Identity;
use crate::leader::{Address, BadConnUrl, BaseUrl, MemberName, UnknownAddress};
use crate::route::Upstream;

/// One claim with its local time of arrival. Remote clocks are never compared with the local one.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Local time of arrival.
    pub at: Instant,
    /// The claim.
    pub claim: Claim,
}

/// A statement of a source.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The leader object; `None` if there is no such object. The API has answered, so it is reachable again.
    Lock(ObjectKind, Option<Lock>),
    /// pgnorth has begun to watch the leader object of this kind.
    Watching(ObjectKind),
    /// The API does not answer for the leader object of this kind: the error.
    ApiUnreachable(ObjectKind, String),
    /// The `<scope>-failover` object; `None` if it is absent or empty.
    Announcement(ObjectKind, Option<Announcement>),
    /// The `<scope>-config` object; `None` if it is absent.
    Settings(ObjectKind, Option<ClusterSettings>),
    /// All pods of the scope: no others exist any more.
    Pods(Vec<Pod>),
    /// One pod, new or changed.
    Pod(Pod),
    /// A pod was deleted.
    PodGone(MemberName),
    /// A member's answer to `GET /primary`, or the reason for which there is none.
    Report(MemberName, Result<Report, NoReport>),
    /// A member's answer to `GET /cluster`.
    Cluster(Cluster),
    /// The cluster that answers at a base URL of `--patroni`, if one does.
    Seed(BaseUrl, Option<Identity>),
    /// The members that failsafe mode knows, while no `/cluster` answers. The list has no addresses of PostgreSQL;
    /// they are taken from the host of each REST API.
    Failsafe(Vec<ClusterMember>),
    /// No member answered `GET /cluster`: the errors.
    ClusterUnreachable(String),
    /// The leader that this member's own answer to `GET /cluster` names, if it names one.
    NamedLeader(MemberName, Option<MemberName>),
    /// The proxy reports that this member does not behave like a leader.
    LeaderFailure(MemberName),
    /// An operator's hold of new clients; `None` if it was withdrawn.
    Held(Option<OperatorHold>),
}

/// An operator's request to hold new clients, for maintenance. Prints as the beginning of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorHold {
    /// Time of the first request, for people.
    pub since: SystemTime,
    /// Time at which it ends by itself, for people.
    pub until: SystemTime,
    /// The same time by the clock that `decide` uses.
    pub ends: Instant,
}

/// The kinds of object in which Patroni can keep its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// The Endpoints `<scope>`, with `use_endpoints`.
    Endpoints,
    /// The ConfigMap `<scope>-leader`.
    ConfigMap,
    /// The key `/<namespace>/<scope>/leader` in etcd, which is bound to its holder's lease.
    EtcdKey,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Endpoints, Self::ConfigMap, Self::EtcdKey];
    /// The kinds in Kubernetes.
    pub const IN_KUBERNETES: [Self; 2] = [Self::Endpoints, Self::ConfigMap];

    /// Returns the store that answers for objects of this kind, as a sentence names it.
    pub const fn store(self) -> &'static str {
        match self {
            Self::Endpoints | Self::ConfigMap => "the Kubernetes API",
            Self::EtcdKey => "etcd",
        }
    }

    /// Returns the name of the source that reads objects of this kind.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Endpoints | Self::ConfigMap => "kubernetes",
            Self::EtcdKey => "etcd",
        }
    }
}

/// The annotations of the leader object that make up the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The member that holds it; `None` after a release.
    pub holder: Option<MemberName>,
    /// The lock's ttl.
    pub ttl: Duration,
    /// `acquireTime`, `renewTime` and `transitions` as written. They are only compared with each other, as Patroni does
    /// (kubernetes.py:904-923), and never with the local clock.
    pub renewal: [Option<String>; 3],
    /// `renewTime` by its holder's clock, if it can be parsed. It is compared with other times of that clock alone.
    pub written: Option<SystemTime>,
    /// Local time of the last renewal, if the source knows it: in etcd, from the lease's age. `None` if the
    /// arrival of a change is all that is known.
    pub renewed: Option<Instant>,
}

/// A planned switchover, or a failover that an operator requested.
///
/// Two are equal if their texts are equal: `starts` is computed again each time the object is read.
#[derive(Clone, Debug, Eq)]
pub struct Announcement {
    /// The member to demote, if it is named.
    pub leader: Option<MemberName>,
    /// The member to promote, if it is named.
    pub candidate: Option<MemberName>,
    /// Scheduled start, as written; `None` for immediately.
    pub scheduled_at: Option<String>,
    /// Scheduled start by the local clock; `None` for immediately.
    pub starts: Option<Instant>,
}

/// The settings in Patroni's config object that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Patroni is paused: no member is promoted automatically.
    pub paused: bool,
    /// The cluster's leader is a standby of another cluster, and no primary.
    pub standby_cluster: bool,
    /// Time for which standbys may postpone the race for the lock while the former leader's WAL advances
    /// (`primary_race_backoff`); zero if they may not.
    pub race_backoff: Duration,
    /// The annotation `initialize`: the system identifier of the cluster.
    pub system: Option<String>,
}

/// A pod of the scope, with the content of its `status` annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's name, which is Patroni's member name.
    pub name: MemberName,
    /// PostgreSQL's address from `conn_url`, else the pod's IP and port 5432.
    pub address: Result<Address, UnknownAddress>,
    /// Its pooler's address, from `proxy_url`.
    pub proxy_address: Option<Result<Address, BadConnUrl>>,
    /// The base URL of its REST API, from `api_url`.
    pub api_url: Option<BaseUrl>,
    /// `role`, as written.
    pub role: Option<String>,
    /// `state`, as written.
    pub state: Option<String>,
    /// `timeline`.
    pub timeline: Option<u32>,
    /// `xlog_location`: the position in the WAL, in bytes. No decision about the leader depends on it.
    pub xlog_location: Option<u64>,
    /// `tags`.
    pub tags: Tags,
    /// `replay_lsn` and `replication_state`.
    pub replication: Replication,
    /// The label `citus-group`.
    pub citus_group: Option<u32>,
}

/// A member's replication, as far as a source says. No decision about the leader depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// A primary's position in the WAL.
    pub location: Option<u64>,
    /// The position up to which a replica has replayed the WAL.
    pub replayed: Option<u64>,
    /// A replica's `replication_state`, as written: `streaming`, `in archive recovery`.
    pub state: Option<String>,
    /// A replica's part in synchronous replication, as Patroni sees it.
    pub standby: Option<Standby>,
    /// The members that stream from this one, by its own pg_stat_replication.
    pub streaming: Vec<MemberName>,
}

/// A replica's part in synchronous replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// `sync_standby`.
    Sync,
    /// `quorum_standby`.
    Quorum,
    /// Neither.
    Async,
}

/// A member's tags, each value as Patroni compares it with the query of a health check (api.py, `do_GET`): text as it
/// is, anything else in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

/// The body of `GET /primary`, and whether its status was 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The status was 200: the member believes that it holds the lock. This does not mean that it is writable.
    pub holds_lock: bool,
    /// PostgreSQL's role according to Patroni.
    pub role: Role,
    /// `state`, as written: `running`, `stopping`, `starting`, …
    pub state: String,
    /// The timeline, if Patroni knows it.
    pub timeline: Option<u32>,
    /// `database_system_identifier`: only timelines of the same system can be compared.
    pub system: Option<String>,
    /// `patroni.scope`.
    pub scope: Option<String>,
    /// The answer has the name of the member that was asked. Patroni sends the name since 3.2.
    pub names_member: bool,
    /// Patroni is paused.
    pub paused: bool,
    /// Failsafe mode is active: the DCS is down, and every member has confirmed the leader.
    pub failsafe_active: bool,
    /// `xlog`, `replication_state`, `replication`, `sync_standby` and `quorum_standby`.
    pub replication: Replication,
}

/// The reason for which a member has given no answer to `GET /primary` that counts.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoReport {
    /// Its REST API has no known URL. Its status in the DCS is the only evidence.
    #[error("its status in the DCS names no usable api_url")]
    NoUrl,
    /// The request failed: the client's error.
    #[error("{0}")]
    Unreachable(String),
    /// Another cluster answers.
    #[error("another cluster answers there, {theirs}; this one is {ours}")]
    OtherCluster {
        /// The identity of the cluster that answers.
        theirs: Identity,
        /// The identity of the cluster that is followed.
        ours: Identity,
    },
    /// The answer proves neither its member nor its cluster.
    #[error("its answer has no member name (Patroni before 3.2) and only {theirs}, which is no proof of {ours}")]
    Unproven {
        /// The identity in the answer.
        theirs: Identity,
        /// The identity of the cluster that is followed.
        ours: Identity,
    },
}

/// PostgreSQL's role in Patroni's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `primary`, or `master` before Patroni 4.0.
    Primary,
    /// `standby_leader`: the leader of a standby cluster.
    StandbyLeader,
    /// `replica`.
    Replica,
    /// Any other role: `promoted`, `demoted`, `uninitialized`, …
    Other,
}

/// The answer to `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The base URL that answered.
    pub from: BaseUrl,
    /// The system identifier of the member that answered, if it is known.
    pub system: Option<String>,
    /// Patroni's scope, if the answer has it.
    pub scope: Option<String>,
    /// The members in the DCS.
    pub members: Vec<ClusterMember>,
    /// The member that holds the lock.
    pub leader: Option<MemberName>,
    /// Patroni is paused.
    pub paused: bool,
    /// The scheduled switchover.
    pub switchover: Option<Announcement>,
    /// The lock's ttl from `GET /config`, if that was answered.
    pub ttl: Option<Duration>,
    /// `primary_race_backoff` from `GET /config`.
    pub race_backoff: Option<Duration>,
}

/// One member of `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    /// Patroni's member name.
    pub name: MemberName,
    /// The address of its PostgreSQL; `None` while the member has not published it.
    pub address: Option<Address>,
    /// The base URL of its REST API.
    pub api_url: Option<BaseUrl>,
    /// The rest of the row.
    pub condition: Condition,
}

/// A member's condition in its row of `GET /cluster`. No decision about the leader depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `role`, as written: `leader`, `replica`, `sync_standby`, …
    pub role: Option<String>,
    /// `state`, as written.
    pub state: Option<String>,
    /// `timeline`.
    pub timeline: Option<u32>,
    /// `lag` behind the leader, in bytes of WAL.
    pub lag: Option<u64>,
    /// `replay_lag` behind the leader, in bytes of WAL (since Patroni 4.1).
    pub replay_lag: Option<u64>,
    /// `tags`.
    pub tags: Tags,
}

impl Tags {
    const NONE: &Self = &Self(BTreeMap::new());

    /// Returns no tags.
    pub const fn none() -> &'static Self {
        Self::NONE
    }

    /// Returns the value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns true if the tag is one that Patroni reads as true (utils.py, `parse_bool`).
    pub fn is_on(&self, name: &str) -> bool {
        let value = self.get(name).map(str::to_lowercase);
        matches!(value.as_deref(), Some("on" | "true" | "yes" | "1"))
    }
}

impl FromIterator<(String, String)> for Tags {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(tags: T) -> Self {
        Self(tags.into_iter().collect())
    }
}

impl PartialEq for Announcement {
    fn eq(&self, other: &Self) -> bool {
        let texts = |one: &Self| (one.leader.clone(), one.candidate.clone(), one.scheduled_at.clone());
        texts(self) == texts(other)
    }
}

impl fmt::Display for OperatorHold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time outside of the calendar comes from a clock that was never set.
        let wall = |at| jiff::Timestamp::try_from(at).unwrap_or_default();
        write!(
            out,
            "held by an operator since {:.0}, through POST /hold, until {:.0} at the latest",
            wall(self.since),
            wall(self.until)
        )
    }
}

impl Pod {
    /// Returns the address that sessions to this member go to, or why it is not known.
    pub fn session_address(&self, upstream: Upstream) -> Result<Address, UnknownAddress> {
        match (upstream, &self.proxy_address) {
            (Upstream::Postgres, _) => self.address.clone(),
            (Upstream::Port(port), _) => self.address.clone().map(|address| Address { port, ..address }),
            (Upstream::Proxy, Some(Ok(address))) => Ok(address.clone()),
            (Upstream::Proxy, Some(Err(why))) => Err(UnknownAddress::ProxyUrl(self.name.clone(), *why)),
            (Upstream::Proxy, None) => Err(UnknownAddress::NoProxyUrl(self.name.clone())),
        }
    }
}

impl ClusterMember {
    /// Returns the address that sessions to this member go to, or why it is not known: `/cluster` has no `proxy_url`.
    pub fn session_address(&self, upstream: Upstream) -> Result<Address, UnknownAddress> {
        let address = || {
            let address = self.address.clone();
            address.ok_or_else(|| UnknownAddress::NotInCluster(self.name.clone()))
        };
        match upstream {
            Upstream::Postgres => address(),
            Upstream::Port(port) => address().map(|address| Address { port, ..address }),
            Upstream::Proxy => Err(UnknownAddress::NoProxyUrl(self.name.clone())),
        }
    }
}

impl Role {
    /// Returns the role with this name in Patroni's JSON.
    pub fn from_patroni(name: &str) -> Self {
        match name {
            "primary" | "master" => Self::Primary,
            "standby_leader" => Self::StandbyLeader,
            "replica" => Self::Replica,
            _ => Self::Other,
        }
    }
}

impl Cluster {
    /// Returns the identity of the cluster that sent this answer.
    pub fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone(),
            system: self.system.clone(),
        }
    }
}

impl Report {
    /// Returns the identity of the cluster that sent this answer.
    pub fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone(),
            system: self.system.clone(),
        }
    }

    /// Returns true for role primary and state running: PostgreSQL accepts writes.
    pub fn is_writable(&self) -> bool {
        self.role == Role::Primary && self.state == "running"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_go_to_postgresql_or_to_the_pooler_beside_it() {
        let address = |port| Address::new("10.0.0.7", port).unwrap();
        let mut member = ClusterMember {
            name: "pg-0".into(),
            address: Some(address(5432)),
            api_url: None,
            condition: Condition::default(),
        };
        assert_eq!(member.session_address(Upstream::Postgres), Ok(address(5432)));
        assert_eq!(member.session_address(Upstream::Port(6432)), Ok(address(6432)));
        let no_proxy_url = UnknownAddress::NoProxyUrl("pg-0".into());
        assert_eq!(member.session_address(Upstream::Proxy), Err(no_proxy_url.clone()));
        assert!(no_proxy_url.to_string().contains("postgresql.proxy_address"));
        member.address = None;
        assert!(member.session_address(Upstream::Port(6432)).is_err());
    }
}
