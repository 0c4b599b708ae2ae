//! The newest observation of each source, with its local time of arrival.
//!
//! While a source fails, its last observation is kept and becomes older, because a failure is not evidence that there
//! is no leader. `decide` draws the conclusions.

mod evidence;
mod followed;
mod lag;
mod lock;
mod naming;
mod recording;
mod renewals;
mod synchronous;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::leader::observation::{
    Announcement, ClusterMember, ClusterSettings, Condition, NoReport, ObjectKind, OperatorHold, Report,
};
use crate::leader::view::evidence::{DcsStatusView, NewestTimeline};
use crate::leader::view::followed::FollowedCluster;
pub use crate::leader::view::followed::{AnswerOrigin, ForeignCluster};
use crate::leader::view::lag::LeaderPositions;
pub use crate::leader::view::lag::ReplayLag;
pub use crate::leader::view::lock::LockView;
use crate::leader::view::naming::Naming;
use crate::leader::view::synchronous::SyncView;
use crate::leader::{Address, BaseUrl, MemberName, UnknownAddress};
use crate::route::Upstream;

/// Patroni's default ttl, used until the cluster's ttl is known.
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Age below which an answer is recent. A member that is asked at all is asked more often than this.
const RECENT: Duration = Duration::from_secs(10);

/// Longest time for which the time of a member's last answer is kept. pgnorth accepts no longer ttl.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// All observations that currently count.
#[derive(Clone, Debug, Default)]
pub struct View {
    endpoints: Objects,
    config_maps: Objects,
    etcd_keys: Objects,
    statuses: BTreeMap<MemberName, DcsStatusView>,
    listed: BTreeMap<MemberName, ClusterMember>,
    answers: BTreeMap<MemberName, Answers>,
    leader_failures: BTreeMap<MemberName, Instant>,
    pooler_failures: BTreeMap<(MemberName, Upstream), Instant>,
    cluster: ClusterAnswer,
    newest_timeline: Option<NewestTimeline>,
    /// Time of each member's last answer. It is kept when the member's status and its row in `/cluster` are gone, so
    /// that the ttl of a member that disappears and returns does not start again.
    last_answers: BTreeMap<MemberName, Instant>,
    named: BTreeMap<MemberName, Naming>,
    leader_positions: LeaderPositions,
    operator_hold: Option<OperatorHold>,
    followed: FollowedCluster,
    upstream: Upstream,
}

/// A value with a local time.
#[derive(Clone, Debug)]
pub struct Timestamped<T> {
    /// The value.
    pub value: T,
    /// Local time of arrival. For an announcement, the time at which it was first seen; for an error, the time of the
    /// first failure in the current series.
    pub at: Instant,
}

/// The newest state of Patroni's objects of one kind.
#[derive(Clone, Debug, Default)]
struct Objects {
    lock: Option<LockView>,
    asked: bool,
    answered: bool,
    unreachable: Option<Timestamped<String>>,
    announcement: Option<Timestamped<Announcement>>,
    settings: Option<ClusterSettings>,
    synchronous: Option<SyncView>,
}

/// The answers of a member's REST API.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The newest answer, which is kept while the member is unreachable.
    pub last: Option<Timestamped<Report>>,
    /// Time of the member's last answer as a leader in failsafe mode.
    pub failsafe_seen: Option<Instant>,
    /// The error of the newest request and the time of the first failure; `None` if the newest request was answered.
    pub unreachable: Option<Timestamped<NoReport>>,
    /// Time at which the newest request was answered or failed.
    pub asked: Option<Instant>,
}

/// The newest answer to `/cluster`, without its list of members.
#[derive(Clone, Debug, Default)]
struct ClusterAnswer {
    answered: bool,
    scope: Option<String>,
    /// Arrival of the newest answer.
    at: Option<Instant>,
    paused: bool,
    switchover: Option<Timestamped<Announcement>>,
    ttl: Option<Duration>,
    race_backoff: Option<Duration>,
    /// The leader that the newest answer names, and the time of that answer.
    leader: Option<Timestamped<MemberName>>,
    unreachable: Option<String>,
}

impl View {
    /// Returns the same view, in which [`address`](Self::address) returns the addresses of `upstream`.
    pub fn with_upstream(self, upstream: Upstream) -> Self {
        Self { upstream, ..self }
    }

    /// Returns the kind of server whose address [`address`](Self::address) returns.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    fn objects(&self, kind: ObjectKind) -> &Objects {
        match kind {
            ObjectKind::Endpoints => &self.endpoints,
            ObjectKind::ConfigMap => &self.config_maps,
            ObjectKind::EtcdKey => &self.etcd_keys,
        }
    }

    /// Returns the kind of object in which Patroni keeps its lock. If several kinds exist (during a migration), returns
    /// the kind whose lock was renewed last.
    pub fn kind(&self) -> Option<ObjectKind> {
        let with_lock = |kind: &ObjectKind| self.objects(*kind).lock.is_some();
        let mut kinds = ObjectKind::ALL.into_iter().filter(with_lock);
        let first = kinds.next()?;
        Some(kinds.fold(first, |best, kind| {
            match (self.objects(kind).lock.as_ref(), self.objects(best).lock.as_ref()) {
                (Some(one), Some(other)) if one.is_newer_than(other) => kind,
                _ => best,
            }
        }))
    }

    /// Returns the lock in use.
    pub fn lock(&self) -> Option<&LockView> {
        self.objects(self.kind()?).lock.as_ref()
    }

    /// Returns the kind of object that is, or may be, the lock; `None` if pgnorth watches no such object.
    pub fn watched_kind(&self) -> Option<ObjectKind> {
        let is_watched = |kind: &ObjectKind| {
            let objects = self.objects(*kind);
            objects.asked || objects.answered || objects.unreachable.is_some()
        };
        self.kind().or_else(|| ObjectKind::ALL.into_iter().find(is_watched))
    }

    /// Returns the kind of object that is, or may be, the lock; Endpoints if pgnorth watches no such object.
    pub fn lock_kind(&self) -> ObjectKind {
        self.watched_kind().unwrap_or(ObjectKind::Endpoints)
    }

    /// Returns the error of the Kubernetes API, or of etcd; `None` while it answers for the lock in use.
    pub fn api_unreachable(&self) -> Option<&str> {
        let error = |kind: ObjectKind| {
            self.objects(kind)
                .unreachable
                .as_ref()
                .map(|heard| heard.value.as_str())
        };
        match self.kind() {
            Some(kind) => error(kind),
            // No lock has been seen, but it may be of a kind that could not be read because of an error or a missing
            // right.
            None => ObjectKind::ALL.into_iter().find_map(error),
        }
    }

    /// Returns true if a leader object was requested and neither an answer nor an error has arrived. That object may be
    /// the lock.
    pub fn awaits_a_leader_object(&self) -> bool {
        let unheard = |objects: &Objects| objects.asked && !objects.answered && objects.unreachable.is_none();
        ObjectKind::ALL.iter().any(|kind| unheard(self.objects(*kind)))
    }

    /// Returns true if the Kubernetes API, or etcd, has ever answered for a leader object.
    pub fn api_answered(&self) -> bool {
        ObjectKind::ALL.iter().any(|kind| self.objects(*kind).answered)
    }

    /// Returns the announced switchover or failover, and the time at which it was first seen.
    pub fn announcement(&self) -> Option<&Timestamped<Announcement>> {
        match self.kind() {
            Some(kind) => self.objects(kind).announcement.as_ref(),
            None => self.cluster.switchover.as_ref(),
        }
    }

    /// Returns true if Patroni is paused: no member is promoted automatically.
    pub fn is_paused(&self) -> bool {
        self.settings().map_or(self.cluster.paused, |settings| settings.paused)
    }

    /// Returns true if this is a standby cluster: its leader replicates from another cluster and is not a primary.
    pub fn is_standby_cluster(&self) -> bool {
        self.settings().is_some_and(|settings| settings.standby_cluster)
    }

    fn settings(&self) -> Option<&ClusterSettings> {
        self.objects(self.kind()?).settings.as_ref()
    }

    /// Returns the time for which standbys may postpone the race for a lost lock while the leader still writes; zero if
    /// Patroni would not postpone the race (ha.py on Patroni's branch `master`, `process_unhealthy_cluster`).
    pub fn race_backoff(&self) -> Duration {
        let never = self.is_paused() || self.is_standby_cluster();
        let candidate = self.announcement().is_some_and(|heard| heard.value.candidate.is_some());
        let of_settings = self.settings().map(|settings| settings.race_backoff);
        match never || candidate {
            true => Duration::ZERO,
            false => of_settings.or(self.cluster.race_backoff).unwrap_or_default(),
        }
    }

    /// Returns the lock's ttl, else the ttl that a member's REST API reported, else Patroni's default.
    pub fn ttl(&self) -> Duration {
        let of_lock = self.lock().map(|view| view.lock.ttl);
        of_lock.or(self.cluster.ttl).unwrap_or(DEFAULT_TTL)
    }

    /// Returns true if `/cluster` has ever been answered, or the answer of a known member is kept.
    pub fn rest_answered(&self) -> bool {
        self.cluster.answered || self.answers.values().any(|answers| answers.last.is_some())
    }

    /// Returns true if a member's REST API has recently answered the newest request to it. The old answer of a member
    /// that is no longer asked proves nothing.
    pub fn rest_answers(&self, member: &MemberName, now: Instant) -> bool {
        let answers = self.answers.get(member).filter(|answers| answers.unreachable.is_none());
        let last = answers.and_then(|answers| answers.last.as_ref());
        last.is_some_and(|last| now < last.at + RECENT)
    }

    /// Returns the time of the last evidence that a member leads: the later of its last renewal of the lock and its
    /// last answer. `None` if there is no evidence.
    pub fn last_evidence(&self, member: Option<&MemberName>) -> Option<Instant> {
        let member = member?;
        let lock = self.lock().filter(|view| view.lock.holder.as_ref() == Some(member));
        lock.map(|view| view.renewed)
            .max(self.last_answers.get(member).copied())
    }

    /// Returns the time from which the ttl of a leader or lock holder counts. While the lock is watched, this is the
    /// last renewal, because a leader that answers may still fail to renew the lock. Otherwise, it is the last
    /// evidence.
    pub fn renewal_seen(&self, member: &MemberName) -> Option<Instant> {
        let watched = self.lock().filter(|_| self.api_unreachable().is_none());
        match watched.filter(|view| view.lock.holder.as_ref() == Some(member)) {
            Some(view) => Some(view.renewed),
            None => self.last_evidence(Some(member)),
        }
    }

    /// Returns Patroni's scope as `/cluster` reports it.
    pub fn scope(&self) -> Option<&str> {
        self.cluster.scope.as_deref()
    }

    /// Returns true if `/cluster` has named another leader since the member's last answer.
    pub fn is_succeeded(&self, member: &MemberName) -> bool {
        let named = self.cluster.leader.as_ref().filter(|named| named.value != *member);
        named.is_some_and(|named| self.last_answers.get(member).is_none_or(|heard| *heard < named.at))
    }

    /// Returns the errors of `/cluster`; `None` if a member answers `/cluster`.
    pub fn cluster_unreachable(&self) -> Option<&str> {
        self.cluster.unreachable.as_deref()
    }

    /// Returns the members' names, from the DCS and `/cluster`, or from Patroni's list for failsafe mode.
    pub fn members(&self) -> impl Iterator<Item = &MemberName> {
        let only_listed = self.listed.keys().filter(|name| !self.statuses.contains_key(*name));
        self.statuses.keys().chain(only_listed)
    }

    /// Returns the address of the member's server that [`upstream`](Self::upstream) selects (PostgreSQL or a pooler),
    /// or the reason why it is unknown.
    pub fn address(&self, member: &MemberName) -> Result<Address, UnknownAddress> {
        self.address_of(member, self.upstream)
    }

    /// Returns the address of one of a member's servers, or the reason why it is unknown.
    pub fn address_of(&self, member: &MemberName, upstream: Upstream) -> Result<Address, UnknownAddress> {
        match (self.statuses.get(member), self.listed.get(member)) {
            (Some(status), listed) => status.value.session_address(upstream).or_else(|why| {
                let listed = listed.map(|listed| listed.session_address(upstream));
                listed.and_then(Result::ok).ok_or(why)
            }),
            (None, Some(listed)) => listed.session_address(upstream),
            (None, None) => Err(UnknownAddress::NoSuchMember(member.clone())),
        }
    }

    /// Returns the base URL of a member's REST API.
    pub fn api_url(&self, member: &MemberName) -> Option<&BaseUrl> {
        let of_status = self
            .statuses
            .get(member)
            .and_then(|status| status.value.api_url.as_ref());
        of_status.or_else(|| self.listed.get(member).and_then(|listed| listed.api_url.as_ref()))
    }

    /// Returns a member's condition in the newest answer to `/cluster`, and the arrival of that answer.
    pub fn condition(&self, member: &MemberName) -> Option<(&Condition, Instant)> {
        Some((&self.listed.get(member)?.condition, self.cluster.at?))
    }

    /// Returns the answers of a member's REST API.
    pub fn answers(&self, member: &MemberName) -> Option<&Answers> {
        self.answers.get(member)
    }

    /// Returns the hold that an operator requested. A hold that has ended no longer holds clients, but is still
    /// returned until it is withdrawn.
    pub fn operator_hold(&self) -> Option<&OperatorHold> {
        self.operator_hold.as_ref()
    }

    /// Returns the time at which the proxy last reported a failure of a member.
    pub fn leader_failure(&self, member: &MemberName) -> Option<Instant> {
        self.leader_failures.get(member).copied()
    }

    /// Returns the time at which the proxy last reported a failure of this pooler of a member.
    pub fn pooler_failure(&self, member: &MemberName, upstream: Upstream) -> Option<Instant> {
        self.pooler_failures.get(&(member.clone(), upstream)).copied()
    }
}
