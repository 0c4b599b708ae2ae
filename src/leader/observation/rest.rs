//! Claims from members' REST APIs: the answers to `GET /primary` and `GET /cluster`.

use std::time::Duration;

use thiserror::Error;

use super::dcs::Announcement;
use super::member::{Replication, Tags};
use crate::leader::identity::Identity;
use crate::leader::{Address, BaseUrl, MemberName, UnknownAddress};
use crate::route::Upstream;

/// A member's answer to `GET /primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// True if the status was 200: the member believes that it holds the lock. It may still not accept writes.
    pub holds_lock: bool,
    /// PostgreSQL's role according to Patroni.
    pub role: Role,
    /// `state`, as written: `running`, `stopping`, `starting`, …
    pub state: String,
    /// The timeline, if Patroni knows it.
    pub timeline: Option<u32>,
    /// `database_system_identifier`. Only timelines of the same system can be compared.
    pub system: Option<String>,
    /// `patroni.scope`.
    pub scope: Option<String>,
    /// True if the answer has the name of the member that was asked. Patroni sends the name since 3.2.
    pub names_member: bool,
    /// True if Patroni is paused.
    pub paused: bool,
    /// True if failsafe mode is active: the DCS is down, and every member has confirmed the leader.
    pub failsafe_active: bool,
    /// `xlog`, `replication_state`, `replication`, `sync_standby` and `quorum_standby`.
    pub replication: Replication,
}

/// The reason why a member has given no valid answer to `GET /primary`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoReport {
    /// The member's status in the DCS has no usable `api_url`.
    #[error("its status in the DCS has no usable api_url")]
    NoUrl,
    /// The request failed with this error.
    #[error("{0}")]
    Unreachable(String),
    /// Another cluster answers at the member's address.
    #[error("another cluster answers at its address: {theirs}; pgnorth follows {ours}")]
    OtherCluster {
        /// The identity of the cluster that answers.
        theirs: Identity,
        /// The identity of the cluster that is followed.
        ours: Identity,
    },
    /// The answer proves neither the member nor the cluster that it comes from.
    #[error(
        "its answer has no member name (Patroni before 3.2) and identifies only {theirs}, which does not prove that it \
         comes from {ours}"
    )]
    Unproven {
        /// The identity in the answer.
        theirs: Identity,
        /// The identity of the cluster that is followed.
        ours: Identity,
    },
}

/// PostgreSQL's role as Patroni names it.
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

/// The leader according to `GET /cluster`. Its row shows that it holds the lock, but not that it is a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLeader {
    /// The member that holds the lock.
    pub member: MemberName,
    /// The timeline that the member wrote to the DCS at the end of its last loop. `None` if its state is not `running`,
    /// or if it leads a standby cluster.
    pub running_on: Option<u32>,
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
    /// True if Patroni is paused.
    pub paused: bool,
    /// The scheduled switchover.
    pub switchover: Option<Announcement>,
    /// The lock's ttl from `GET /config`, if that request was answered.
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
    /// The other fields of the row.
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

impl ClusterMember {
    /// Returns the address that sessions to this member go to, or the reason why it is unknown. `/cluster` has no
    /// `proxy_url`.
    pub fn session_address(&self, upstream: Upstream) -> Result<Address, UnknownAddress> {
        let address = || {
            let address = self.address.clone();
            address.ok_or_else(|| UnknownAddress::NotInCluster(self.name.clone()))
        };
        match upstream {
            Upstream::Postgres => address(),
            Upstream::Port(port) => address().map(|address| Address { port, ..address }),
            Upstream::Proxy => Err(UnknownAddress::ProxyUrlNotInCluster(self.name.clone())),
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

    /// Returns true if the role is primary and the state is running, which means that PostgreSQL accepts writes.
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
        let unknown = member.session_address(Upstream::Proxy).unwrap_err().to_string();
        assert!(unknown.contains("no pod and no key in etcd of this name"), "{unknown}");
        member.address = None;
        assert!(member.session_address(Upstream::Port(6432)).is_err());
    }
}
