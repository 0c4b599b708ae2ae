//! What the sources say, parsed: values only. Parsing stands beside each source in `discovery`; what follows from the
//! claims is decided in `decide`.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::leader::identity::Identity;
use crate::leader::{Address, BaseUrl, MemberName};

/// One piece of news, with its local time of arrival. Remote clocks are never compared with ours.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When it arrived here.
    pub at: Instant,
    /// What it says.
    pub claim: Claim,
}

/// What a source says.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The leader object as it stands; `None` when there is no such object. The API answered, so this also ends its
    /// silence.
    Lock(ObjectKind, Option<Lock>),
    /// pgnorth has begun to watch the leader object of this kind.
    Watching(ObjectKind),
    /// The API does not answer for the leader object of this kind, and why.
    ApiSilent(ObjectKind, String),
    /// The `<scope>-failover` object; `None` when it is absent or empty.
    Announcement(ObjectKind, Option<Announcement>),
    /// The `<scope>-config` object; `None` when it is absent.
    Settings(ObjectKind, Option<ClusterSettings>),
    /// All pods of the scope: others are gone.
    Pods(Vec<Pod>),
    /// One pod, new or changed.
    Pod(Pod),
    /// A pod was deleted.
    PodGone(MemberName),
    /// A member's REST API answered `GET /primary`, or did not, and why not.
    Report(MemberName, Result<Report, String>),
    /// Some member's REST API answered `GET /cluster`.
    Cluster(Cluster),
    /// Which cluster answers at a base URL of `--patroni`, if any does.
    Seed(BaseUrl, Option<Identity>),
    /// The members that failsafe mode knows, while no `/cluster` answers: where their PostgreSQL listens is not told
    /// there, and taken from their REST API's host.
    Failsafe(Vec<ClusterMember>),
    /// No member answered `GET /cluster`, and why not.
    ClusterSilent(String),
    /// This member's own `GET /cluster` names that leader, or none.
    Named(MemberName, Option<MemberName>),
    /// The proxy says that this member does not behave like a leader.
    LeaderFailure(MemberName),
    /// An operator wants new clients held; `None`: no longer.
    Held(Option<OperatorHold>),
}

/// An operator's wish that new clients wait, for maintenance. Prints as the beginning of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorHold {
    /// When it was first asked for, for people.
    pub since: SystemTime,
    /// When it ends by itself, for people.
    pub until: SystemTime,
    /// The same by the clock that decides.
    pub ends: Instant,
}

/// The two kinds of object that Patroni can keep its lock in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// `<scope>`, with `use_endpoints`.
    Endpoints,
    /// `<scope>-leader`.
    ConfigMap,
}

impl ObjectKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Endpoints, Self::ConfigMap];
}

/// The annotations of the leader object that make up the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The member that holds it; `None` once it was released.
    pub holder: Option<MemberName>,
    /// The lock's ttl.
    pub ttl: Duration,
    /// `acquireTime`, `renewTime` and `transitions` as they stand: only compared, as Patroni does
    /// (kubernetes.py:904-923), and never with a clock of ours.
    pub renewal: [Option<String>; 3],
    /// `renewTime` by its holder's clock, where it can be read: compared with other times of that clock alone.
    pub written: Option<SystemTime>,
}

/// A planned switchover, or a failover asked for by hand.
///
/// Two are equal when their texts are: `starts` is computed anew at each reading.
#[derive(Clone, Debug, Eq)]
pub struct Announcement {
    /// The member to be demoted, if named.
    pub leader: Option<MemberName>,
    /// The member to be promoted, if named.
    pub candidate: Option<MemberName>,
    /// When it is to begin, as written; `None` for at once.
    pub scheduled_at: Option<String>,
    /// When it is to begin, by the local clock; `None` for at once.
    pub starts: Option<Instant>,
}

/// What of Patroni's config object matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Nobody is promoted by itself while this holds.
    pub paused: bool,
    /// The cluster's leader is a standby of another cluster: not a primary.
    pub standby_cluster: bool,
    /// How long standbys may put the race for the lock off while the former leader's WAL goes on
    /// (`primary_race_backoff`); zero for not at all.
    pub race_backoff: Duration,
    /// The annotation `initialize`: the system identifier of the cluster.
    pub system: Option<String>,
}

/// A pod of the scope, as its `status` annotation tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's name, which is Patroni's member name.
    pub name: MemberName,
    /// From `conn_url`; the pod's IP and 5432 as fallback. The error names what is wrong with them.
    pub address: Result<Address, String>,
    /// The base URL of its REST API, from `api_url`.
    pub api_url: Option<BaseUrl>,
    /// `role`, as written.
    pub role: Option<String>,
    /// `state`, as written.
    pub state: Option<String>,
    /// `timeline`.
    pub timeline: Option<u32>,
    /// `xlog_location`: how far it has come, in bytes of WAL. For people; nothing is decided by it.
    pub xlog_location: Option<u64>,
    /// The label `citus-group`.
    pub citus_group: Option<u32>,
}

/// The body of `GET /primary`, and whether its status was 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The status was 200: the member believes that it holds the lock. It does not mean writable.
    pub holds_lock: bool,
    /// PostgreSQL's role, as Patroni sees it.
    pub role: Role,
    /// `state`, as written: `running`, `stopping`, `starting`, …
    pub state: String,
    /// The timeline, when Patroni knows it.
    pub timeline: Option<u32>,
    /// `database_system_identifier`: timelines compare only within one system.
    pub system: Option<String>,
    /// `patroni.scope`.
    pub scope: Option<String>,
    /// It names the member that answers, and it is the one that was asked. Patroni does so since 3.2.
    pub names_member: bool,
    /// Patroni is paused.
    pub paused: bool,
    /// The DCS is down and every member vouches for the leader.
    pub failsafe_active: bool,
}

/// PostgreSQL's role in Patroni's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `primary`, or `master` before Patroni 4.0.
    Primary,
    /// `standby_leader`: leads a cluster that follows another one.
    StandbyLeader,
    /// Anything else: `replica`, `promoted`, `demoted`, `uninitialized`, …
    Other,
}

/// The answer to `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The base URL that it comes from.
    pub from: BaseUrl,
    /// The system identifier of the member that answers there, where it tells.
    pub system: Option<String>,
    /// Patroni's scope, if the answer tells it.
    pub scope: Option<String>,
    /// The members that the DCS knows.
    pub members: Vec<ClusterMember>,
    /// The one that holds the lock.
    pub leader: Option<MemberName>,
    /// Patroni is paused.
    pub paused: bool,
    /// A switchover that is scheduled.
    pub switchover: Option<Announcement>,
    /// The lock's ttl, from `GET /config`, where that answered.
    pub ttl: Option<Duration>,
    /// `primary_race_backoff`, from there.
    pub race_backoff: Option<Duration>,
}

/// One member of `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    /// Patroni's member name.
    pub name: MemberName,
    /// Where its PostgreSQL listens; `None` while it has not said so.
    pub address: Option<Address>,
    /// The base URL of its REST API.
    pub api_url: Option<BaseUrl>,
    /// What else the row says.
    pub condition: Condition,
}

/// What a row of `GET /cluster` says of a member's condition. For people; nothing is decided by it.
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
}

impl PartialEq for Announcement {
    fn eq(&self, other: &Self) -> bool {
        let texts = |one: &Self| (one.leader.clone(), one.candidate.clone(), one.scheduled_at.clone());
        texts(self) == texts(other)
    }
}

impl fmt::Display for OperatorHold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time that no calendar has is a clock that was never set.
        let wall = |at| jiff::Timestamp::try_from(at).unwrap_or_default();
        write!(
            out,
            "held by an operator since {:.0}, through POST /hold, until {:.0} at the latest",
            wall(self.since),
            wall(self.until)
        )
    }
}

impl Role {
    /// From the word in Patroni's JSON.
    pub fn from_patroni(word: &str) -> Self {
        match word {
            "primary" | "master" => Self::Primary,
            "standby_leader" => Self::StandbyLeader,
            _ => Self::Other,
        }
    }
}

impl Cluster {
    /// The cluster that it is the answer of.
    pub fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone(),
            system: self.system.clone(),
        }
    }
}

impl Report {
    /// The cluster that it is the answer of.
    pub fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone(),
            system: self.system.clone(),
        }
    }

    /// Role primary, state running: PostgreSQL accepts writes.
    pub fn is_writable(&self) -> bool {
        self.role == Role::Primary && self.state == "running"
    }
}
