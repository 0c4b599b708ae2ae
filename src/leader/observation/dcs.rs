//! Claims from Patroni's DCS: its objects in Kubernetes, or its keys in etcd.

use std::time::{Duration, Instant, SystemTime};

use super::member::{Replication, Standby, Tags};
use crate::leader::{Address, BadConnUrl, BaseUrl, MemberName, UnknownAddress};
use crate::route::Upstream;

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

    /// Returns the name of the store that contains objects of this kind, for use in a sentence.
    pub const fn store(self) -> &'static str {
        match self {
            Self::Endpoints | Self::ConfigMap => "the Kubernetes API",
            Self::EtcdKey => "etcd",
        }
    }

    /// Returns the noun for an object of this kind that is the lock.
    pub const fn lock_object(self) -> &'static str {
        match self {
            Self::Endpoints | Self::ConfigMap => "leader object",
            Self::EtcdKey => "leader key",
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

/// The lock, as the leader object or key contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The member that holds it; `None` after a release.
    pub holder: Option<MemberName>,
    /// The lock's ttl.
    pub ttl: Duration,
    /// `acquireTime`, `renewTime` and `transitions` as written; for etcd, only the key's `mod_revision`, in the third
    /// place. They are compared only with other such values, as Patroni does (kubernetes.py:904-923), never with the
    /// local clock.
    pub renewal: [Option<String>; 3],
    /// `renewTime` by the holder's clock, if it can be parsed. It is compared only with other times of that clock.
    pub written: Option<SystemTime>,
    /// Local time of the last renewal, if the source knows it: for etcd, computed from the lease's age. `None` if only
    /// the arrival of the change is known.
    pub renewed: Option<Instant>,
}

/// A planned switchover, or a failover that an operator requested.
///
/// Two announcements are equal if their texts are equal. `starts` is computed again each time the object is read.
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

/// The settings in Patroni's config object that pgnorth uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// True if Patroni is paused: no member is promoted automatically.
    pub paused: bool,
    /// True if the cluster is a standby cluster: its leader is a standby of another cluster, not a primary.
    pub standby_cluster: bool,
    /// Time for which standbys may postpone the race for the lock while the former leader's WAL advances
    /// (`primary_race_backoff`); zero if they may not.
    pub race_backoff: Duration,
    /// The kind of synchronous standbys that `synchronous_mode` selects; `None` if it is off.
    pub synchronous: Option<Standby>,
    /// The system identifier of the cluster, from the annotation or the key `initialize`.
    pub system: Option<String>,
}

/// A member's status in the DCS, which the member publishes in the annotation `status` of its pod or in its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcsStatus {
    /// Patroni's member name; in Kubernetes, the pod's name.
    pub name: MemberName,
    /// PostgreSQL's address, from `conn_url`, else from the pod's IP with port 5432.
    pub address: Result<Address, UnknownAddress>,
    /// The address of the member's pooler, from `proxy_url`.
    pub proxy_address: Option<Result<Address, BadConnUrl>>,
    /// The base URL of the member's REST API, from `api_url`.
    pub api_url: Option<BaseUrl>,
    /// `role`, as written.
    pub role: Option<String>,
    /// `state`, as written.
    pub state: Option<String>,
    /// `timeline`.
    pub timeline: Option<u32>,
    /// `xlog_location`: the WAL position, in bytes. No decision about the leader depends on it.
    pub xlog_location: Option<u64>,
    /// `tags`.
    pub tags: Tags,
    /// `replay_lsn` and `replication_state`.
    pub replication: Replication,
    /// The label `citus-group`.
    pub citus_group: Option<u32>,
}

impl PartialEq for Announcement {
    fn eq(&self, other: &Self) -> bool {
        let texts = |one: &Self| (one.leader.clone(), one.candidate.clone(), one.scheduled_at.clone());
        texts(self) == texts(other)
    }
}

impl DcsStatus {
    /// Returns the address that sessions to this member go to, or the reason why it is unknown.
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
