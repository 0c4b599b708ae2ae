//! The parsed statements of the sources, as values only. Each source in `discovery` has its own parsing; `decide`
//! draws the conclusions.

mod dcs;
mod member;
mod rest;

use std::fmt;
use std::time::{Instant, SystemTime};

use crate::leader::identity::Identity;
use crate::leader::synchronous::SyncState;
use crate::leader::{BaseUrl, MemberName};
use crate::route::Upstream;

pub use dcs::{Announcement, ClusterSettings, DcsStatus, Lock, ObjectKind};
pub use member::{Replication, Standby, Tags};
pub use rest::{Cluster, ClusterMember, Condition, NamedLeader, NoReport, Report, Role};

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
    /// The `<scope>-sync` object, which is empty if it is absent; `None` if it cannot be read.
    Synchronous(ObjectKind, Option<SyncState>),
    /// The status of every member in the DCS: no others exist any more.
    DcsStatuses(Vec<DcsStatus>),
    /// The status of one member, new or changed.
    DcsStatus(DcsStatus),
    /// The pod or key of a member was deleted.
    DcsStatusGone(MemberName),
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
    /// A member's own answer to `GET /cluster`, which names the leader.
    NamedLeader {
        /// The member that answers.
        by: MemberName,
        /// Local time at which the request was sent: the member read the leader from the DCS after it.
        asked: Instant,
        /// The leader that it names; `None` if no member is the leader.
        leader: Option<NamedLeader>,
    },
    /// The proxy reports that this member does not behave like a leader.
    LeaderFailure(MemberName),
    /// The proxy could not reach this pooler of the member. It is no evidence about the member.
    PoolerFailure(MemberName, Upstream),
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
