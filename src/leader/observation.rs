//! The parsed statements of the sources, as plain values. Each source in `discovery` parses its own input; `decide`
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

/// A claim with its local time of arrival. Remote clocks are never compared with the local clock.
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
    /// The leader object; `None` if no such object exists. The claim also shows that its store answers.
    Lock(ObjectKind, Option<Lock>),
    /// The leader object of this kind is requested.
    Watching(ObjectKind),
    /// The leader object of this kind cannot be read, with this error.
    ApiUnreachable(ObjectKind, String),
    /// The object `<scope>-failover`, or the key `failover`; `None` if it is absent or empty.
    Announcement(ObjectKind, Option<Announcement>),
    /// The object `<scope>-config`, or the keys `config` and `initialize`; `None` if they are absent.
    Settings(ObjectKind, Option<ClusterSettings>),
    /// The object `<scope>-sync`, or the key `sync`; empty if it is absent, and `None` if it cannot be read.
    Synchronous(ObjectKind, Option<SyncState>),
    /// The statuses of all members in the DCS. Any other status no longer exists.
    DcsStatuses(Vec<DcsStatus>),
    /// The new or changed status of one member.
    DcsStatus(DcsStatus),
    /// The pod or key of a member was deleted.
    DcsStatusGone(MemberName),
    /// A member's answer to `GET /primary`, or the reason why there is no answer.
    Report(MemberName, Result<Report, NoReport>),
    /// A member's answer to `GET /cluster`.
    Cluster(Cluster),
    /// The identity of the cluster that answers at a base URL of `--patroni`, if a cluster answers.
    Seed(BaseUrl, Option<Identity>),
    /// The members in Patroni's list for failsafe mode. They are used only if pgnorth watches Kubernetes and no other
    /// source has named a member. The list has no addresses of PostgreSQL, so the host of each REST API is used.
    Failsafe(Vec<ClusterMember>),
    /// No member answered `GET /cluster`, with these errors.
    ClusterUnreachable(String),
    /// A member's own answer to `GET /cluster`, which names the leader.
    NamedLeader {
        /// The member that answered.
        by: MemberName,
        /// Local time of the request. The member read the leader from the DCS after this time.
        asked: Instant,
        /// The leader that the member names; `None` if it names no leader.
        leader: Option<NamedLeader>,
    },
    /// The proxy reports a failure of this member's PostgreSQL.
    LeaderFailure(MemberName),
    /// The proxy reports a failure of this pooler of the member. It is not evidence about the member itself.
    PoolerFailure(MemberName, Upstream),
    /// An operator's hold of new clients; `None` if it was withdrawn.
    Held(Option<OperatorHold>),
}

/// An operator's request to hold new clients, for maintenance. Displayed as the beginning of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorHold {
    /// Wall-clock time of the first request, for display.
    pub since: SystemTime,
    /// Wall-clock time at which the hold ends automatically, for display.
    pub until: SystemTime,
    /// The end by the monotonic clock, which `decide` uses.
    pub ends: Instant,
}

impl fmt::Display for OperatorHold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time outside the calendar's range comes from a clock that was never set.
        let wall = |at| jiff::Timestamp::try_from(at).unwrap_or_default();
        write!(
            out,
            "held by an operator since {:.0}, through POST /hold, until {:.0} at the latest",
            wall(self.since),
            wall(self.until)
        )
    }
}
