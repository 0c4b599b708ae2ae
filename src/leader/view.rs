//! The newest observation of each source, with its local time of arrival.
//!
//! The observation of a source that fails becomes older; a failure is no evidence that there is no leader. `decide`
//! draws the conclusions.

mod evidence;
mod followed;
mod lag;
mod lock;
mod naming;
mod renewals;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::leader::observation::{
    Announcement, Claim, ClusterMember, ClusterSettings, Condition, Lock, NoReport, ObjectKind, Observation,
    OperatorHold, Pod, Report,
};
use crate::leader::view::evidence::{NewestTimeline, PodView};
use crate::leader::view::followed::FollowedCluster;
pub use crate::leader::view::followed::{AnswerOrigin, ForeignCluster};
use crate::leader::view::lag::LeaderPositions;
pub use crate::leader::view::lag::ReplayLag;
pub use crate::leader::view::lock::LockView;
pub use crate::leader::view::naming::NAMING_LIFE;
use crate::leader::view::naming::NamedLeaders;
use crate::leader::{Address, BaseUrl, MemberName, UnknownAddress};
use crate::route::Upstream;

/// Patroni's default ttl, used until the cluster's own is known.
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Age below which an answer is recent. Members are asked more often than this, if they are asked at all.
const RECENT: Duration = Duration::from_secs(10);
/// Longest time for which a member's last answer is kept: longer than any ttl.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// All observations that count now.
#[derive(Clone, Debug, Default)]
pub struct View {
    endpoints: Objects,
    config_maps: Objects,
    etcd_keys: Objects,
    pods: BTreeMap<MemberName, PodView>,
    listed: BTreeMap<MemberName, ClusterMember>,
    answers: BTreeMap<MemberName, Answers>,
    leader_failures: BTreeMap<MemberName, Instant>,
    cluster: ClusterAnswer,
    newest_timeline: Option<NewestTimeline>,
    /// Time of each member's last answer. It outlives the member's pod and its row in `/cluster`: without it, the ttl
    /// of a member that disappears and returns would start again.
    last_answers: BTreeMap<MemberName, Instant>,
    named: NamedLeaders,
    leader_positions: LeaderPositions,
    operator_hold: Option<OperatorHold>,
    followed: FollowedCluster,
    upstream: Upstream,
}

/// A value and the local time of its last change.
#[derive(Clone, Debug)]
pub struct Timestamped<T> {
    /// The value.
    pub value: T,
    /// Local time at which this value was first seen.
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
}

/// The answers of a member's REST API.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The newest answer. It is kept while the member is unreachable.
    pub last: Option<Timestamped<Report>>,
    /// Time of its last answer as a leader in failsafe mode.
    pub failsafe_seen: Option<Instant>,
    /// The error of the newest request and the time of the first failure; `None` if the newest request was answered.
    pub unreachable: Option<Timestamped<NoReport>>,
    /// Time at which the newest request was answered or failed.
    pub asked: Option<Instant>,
}

/// The newest answer to `/cluster`, without the members.
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
    /// Returns the same view, with the addresses of these servers of the members.
    pub fn with_upstream(self, upstream: Upstream) -> Self {
        Self { upstream, ..self }
    }

    /// Records one observation.
    pub fn record(&mut self, observation: Observation) {
        let Observation { at, claim } = observation;
        if let Some(claim) = self.only_ours(claim, at) {
            self.apply(claim, at);
        }
        self.identify(at);
    }

    fn apply(&mut self, claim: Claim, at: Instant) {
        match claim {
            Claim::Lock(kind, lock) => self.objects_mut(kind).record_lock(lock, at),
            Claim::Watching(kind) => self.objects_mut(kind).asked = true,
            Claim::ApiUnreachable(kind, why) => {
                self.objects_mut(kind).unreachable = Some(since_first_failure(&self.objects(kind).unreachable, why, at))
            }
            Claim::Announcement(kind, newest) => {
                let known = &mut self.objects_mut(kind).announcement;
                *known = newest.map(|newest| unchanged_or_new(known.take(), newest, at));
            }
            Claim::Settings(kind, settings) => self.objects_mut(kind).settings = settings,
            Claim::Pods(pods) => {
                self.pods.retain(|name, _| pods.iter().any(|pod| pod.name == *name));
                for pod in pods {
                    self.record_pod(pod, at);
                }
                self.forget_former_members();
            }
            Claim::Pod(pod) => self.record_pod(pod, at),
            Claim::PodGone(name) => {
                self.pods.remove(&name);
                self.forget_former_members();
            }
            Claim::Report(member, Ok(report)) => self.record_report(member, report, at),
            Claim::Report(member, Err(why)) => {
                let answers = self.answers.entry(member).or_default();
                answers.unreachable = Some(since_first_failure(&answers.unreachable, why, at));
                answers.asked = Some(at);
            }
            Claim::Cluster(cluster) => {
                let newest = &mut self.cluster;
                newest.answered = true;
                newest.at = Some(at);
                newest.unreachable = None;
                newest.scope = cluster.scope.or(newest.scope.take());
                newest.paused = cluster.paused;
                newest.ttl = cluster.ttl.or(newest.ttl);
                newest.race_backoff = cluster.race_backoff.or(newest.race_backoff);
                newest.leader = cluster.leader.map(|value| Timestamped { value, at });
                let former = newest.switchover.take();
                newest.switchover = cluster.switchover.map(|new| unchanged_or_new(former, new, at));
                self.record_members(cluster.members);
            }
            // A pod has its IP address for itself. On any other host another PostgreSQL server may use the default
            // port, so these members count only if every member is expected in a pod.
            Claim::Failsafe(members) => {
                let in_pods = ObjectKind::IN_KUBERNETES.iter().any(|kind| self.objects(*kind).asked);
                if in_pods && self.pods.is_empty() && self.listed.is_empty() {
                    self.record_members(members);
                }
            }
            Claim::ClusterUnreachable(why) => self.cluster.unreachable = Some(why),
            Claim::NamedLeader(member, leader) => _ = self.named.insert(member, Timestamped { value: leader, at }),
            Claim::LeaderFailure(member) => {
                self.leader_failures.insert(member, at);
            }
            Claim::Held(hold) => self.operator_hold = hold,
            // `only_ours` has already used it.
            Claim::Seed(..) => {}
        }
        self.follow_the_lock_to_an_older_timeline(at);
    }

    fn record_pod(&mut self, pod: Pod, at: Instant) {
        let known = self.pods.remove(&pod.name);
        let moved = known
            .as_ref()
            .is_some_and(|known| known.value.address != pod.address || known.value.api_url != pod.api_url);
        if moved {
            // The same name at another address is another process: the answers of the former one are no evidence.
            self.answers.remove(&pod.name);
        }
        if pod.api_url.is_none() {
            let answers = self.answers.entry(pod.name.clone()).or_default();
            answers.unreachable = Some(since_first_failure(&answers.unreachable, NoReport::NoUrl, at));
            answers.asked = Some(at);
        }
        if let (true, Some(location)) = (self.leads_by_status(&pod), pod.xlog_location) {
            self.leader_positions.record(&pod.name, location, at);
        }
        let pod = PodView::new(known, pod, at);
        self.pods.insert(pod.value.name.clone(), pod);
    }

    fn record_members(&mut self, members: Vec<ClusterMember>) {
        for member in &members {
            let elsewhere = |known: &ClusterMember| known.address != member.address || known.api_url != member.api_url;
            if self.listed.get(&member.name).is_some_and(elsewhere) {
                self.answers.remove(&member.name);
            }
        }
        self.listed = members
            .into_iter()
            .map(|member| (member.name.clone(), member))
            .collect();
        self.forget_former_members();
    }

    fn record_report(&mut self, member: MemberName, report: Report, at: Instant) {
        self.note_timeline(&report, at);
        if let (true, true, Some(location)) = (report.holds_lock, report.is_writable(), report.replication.location) {
            self.leader_positions.record(&member, location, at);
        }
        self.last_answers
            .retain(|_, heard| at.saturating_duration_since(*heard) < MAX_TTL);
        self.last_answers.insert(member.clone(), at);
        let answers = self.answers.entry(member).or_default();
        if report.failsafe_active && report.is_writable() {
            answers.failsafe_seen = Some(at);
        }
        answers.last = Some(Timestamped { value: report, at });
        answers.asked = Some(at);
        answers.unreachable = None;
    }

    fn forget_former_members(&mut self) {
        let (pods, listed) = (&self.pods, &self.listed);
        let known = |name: &MemberName| pods.contains_key(name) || listed.contains_key(name);
        self.answers.retain(|name, _| known(name));
        self.leader_failures.retain(|name, _| known(name));
        self.named.retain(|name, _| known(name));
    }

    fn objects(&self, kind: ObjectKind) -> &Objects {
        match kind {
            ObjectKind::Endpoints => &self.endpoints,
            ObjectKind::ConfigMap => &self.config_maps,
            ObjectKind::EtcdKey => &self.etcd_keys,
        }
    }

    fn objects_mut(&mut self, kind: ObjectKind) -> &mut Objects {
        match kind {
            ObjectKind::Endpoints => &mut self.endpoints,
            ObjectKind::ConfigMap => &mut self.config_maps,
            ObjectKind::EtcdKey => &mut self.etcd_keys,
        }
    }

    /// Returns the kind of object in which Patroni keeps its lock. If both kinds exist (during a migration), it is
    /// the one that was renewed last.
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

    /// Returns the kind of object that is, or may be, the lock; `None` if pgnorth watches none.
    pub fn watched_kind(&self) -> Option<ObjectKind> {
        let is_watched = |kind: &ObjectKind| {
            let objects = self.objects(*kind);
            objects.asked || objects.answered || objects.unreachable.is_some()
        };
        self.kind().or_else(|| ObjectKind::ALL.into_iter().find(is_watched))
    }

    /// Returns the store of the lock, as a sentence names it.
    pub fn store(&self) -> &'static str {
        self.watched_kind().unwrap_or(ObjectKind::Endpoints).store()
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
            // No lock has been seen: it may be of the kind that could not be read, because of an error or of a
            // missing right.
            None => ObjectKind::ALL.into_iter().find_map(error),
        }
    }

    /// Returns true if a leader object was requested, and neither an answer nor an error has arrived: it may be the
    /// lock.
    pub fn awaits_a_leader_object(&self) -> bool {
        let unheard = |objects: &Objects| objects.asked && !objects.answered && objects.unreachable.is_none();
        ObjectKind::ALL.iter().any(|kind| unheard(self.objects(*kind)))
    }

    /// Returns true if the Kubernetes API, or etcd, has ever answered for a leader object.
    pub fn api_answered(&self) -> bool {
        ObjectKind::ALL.iter().any(|kind| self.objects(*kind).answered)
    }

    /// Returns the announced switchover, and the time at which it was first seen.
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

    /// Returns true if this is a standby cluster: its leader replicates from another cluster and is no primary.
    pub fn is_standby_cluster(&self) -> bool {
        self.settings().is_some_and(|settings| settings.standby_cluster)
    }

    fn settings(&self) -> Option<&ClusterSettings> {
        self.objects(self.kind()?).settings.as_ref()
    }

    /// Returns the time for which standbys may postpone the race for a lost lock while the leader still writes; zero if
    /// Patroni would not postpone it (its master's ha.py, `process_unhealthy_cluster`).
    pub fn race_backoff(&self) -> Duration {
        let never = self.is_paused() || self.is_standby_cluster();
        let candidate = self.announcement().is_some_and(|heard| heard.value.candidate.is_some());
        let of_settings = self.settings().map(|settings| settings.race_backoff);
        match never || candidate {
            true => Duration::ZERO,
            false => of_settings.or(self.cluster.race_backoff).unwrap_or_default(),
        }
    }

    /// Returns the lock's ttl.
    pub fn ttl(&self) -> Duration {
        let of_lock = self.lock().map(|view| view.lock.ttl);
        of_lock.or(self.cluster.ttl).unwrap_or(DEFAULT_TTL)
    }

    /// Returns true if any member's REST API has ever answered.
    pub fn rest_answered(&self) -> bool {
        self.cluster.answered || self.answers.values().any(|answers| answers.last.is_some())
    }

    /// Returns true if a member's REST API has answered the newest request to it, and recently: the old answer of a
    /// member that is no longer asked proves nothing.
    pub fn rest_answers(&self, member: &MemberName, now: Instant) -> bool {
        let answers = self.answers.get(member).filter(|answers| answers.unreachable.is_none());
        let last = answers.and_then(|answers| answers.last.as_ref());
        last.is_some_and(|last| now < last.at + RECENT)
    }

    /// Returns the time of the last evidence that a member leads, the newer one of its lock's renewal and its last
    /// answer; `None` if there was none.
    pub fn last_evidence(&self, member: Option<&MemberName>) -> Option<Instant> {
        let member = member?;
        let lock = self.lock().filter(|view| view.lock.holder.as_ref() == Some(member));
        lock.map(|view| view.renewed)
            .max(self.last_answers.get(member).copied())
    }

    /// Returns the time from which the ttl of the leader, or of the lock's holder, counts. While the lock is watched,
    /// this is its last renewal, because a leader that answers may fail to renew the lock; otherwise it is the last
    /// evidence.
    pub fn renewal_seen(&self, member: &MemberName) -> Option<Instant> {
        let watched = self.lock().filter(|_| self.api_unreachable().is_none());
        match watched.filter(|view| view.lock.holder.as_ref() == Some(member)) {
            Some(view) => Some(view.renewed),
            None => self.last_evidence(Some(member)),
        }
    }

    /// Returns Patroni's scope as the members report it.
    pub fn scope(&self) -> Option<&str> {
        self.cluster.scope.as_deref()
    }

    /// Returns true if `/cluster` has named another leader since the member's last answer.
    pub fn is_succeeded(&self, member: &MemberName) -> bool {
        let named = self.cluster.leader.as_ref().filter(|named| named.value != *member);
        named.is_some_and(|named| self.last_answers.get(member).is_none_or(|heard| *heard < named.at))
    }

    /// Returns the errors of `/cluster`; `None` if a member answers it.
    pub fn cluster_unreachable(&self) -> Option<&str> {
        self.cluster.unreachable.as_deref()
    }

    /// Returns the members' names, from pods and `/cluster`.
    pub fn members(&self) -> impl Iterator<Item = &MemberName> {
        let only_listed = self.listed.keys().filter(|name| !self.pods.contains_key(*name));
        self.pods.keys().chain(only_listed)
    }

    /// Returns the address that sessions to a member go to, or why it is not known.
    pub fn address(&self, member: &MemberName) -> Result<Address, UnknownAddress> {
        match (self.pods.get(member), self.listed.get(member)) {
            (Some(pod), listed) => pod.value.session_address(self.upstream).or_else(|why| {
                let listed = listed.map(|listed| listed.session_address(self.upstream));
                listed.and_then(Result::ok).ok_or(why)
            }),
            (None, Some(listed)) => listed.session_address(self.upstream),
            (None, None) => Err(UnknownAddress::NoSuchMember(member.clone())),
        }
    }

    /// Returns the base URL of a member's REST API.
    pub fn api_url(&self, member: &MemberName) -> Option<&BaseUrl> {
        let of_pod = self.pods.get(member).and_then(|pod| pod.value.api_url.as_ref());
        of_pod.or_else(|| self.listed.get(member).and_then(|listed| listed.api_url.as_ref()))
    }

    /// Returns a member's condition in the newest answer to `/cluster`, and the arrival of that answer.
    pub fn condition(&self, member: &MemberName) -> Option<(&Condition, Instant)> {
        Some((&self.listed.get(member)?.condition, self.cluster.at?))
    }

    /// Returns the answers of a member's REST API.
    pub fn answers(&self, member: &MemberName) -> Option<&Answers> {
        self.answers.get(member)
    }

    /// Returns the hold that an operator requested. After its end it holds no client any more, but is returned until
    /// it is withdrawn.
    pub fn operator_hold(&self) -> Option<&OperatorHold> {
        self.operator_hold.as_ref()
    }

    /// Returns the time at which the proxy last reported a failure of a member.
    pub fn leader_failure(&self, member: &MemberName) -> Option<Instant> {
        self.leader_failures.get(member).copied()
    }
}

impl Objects {
    fn record_lock(&mut self, lock: Option<Lock>, at: Instant) {
        let first_answer = !std::mem::replace(&mut self.answered, true);
        let outage = self
            .unreachable
            .take()
            .map(|failure| at.saturating_duration_since(failure.at));
        let known = self
            .lock
            .take()
            .map(|known| known.after_outage(outage.unwrap_or_default()));
        self.lock = match (lock, known) {
            (None, _) => None,
            (Some(lock), Some(known)) if known.lock == lock => Some(known),
            (Some(lock), known) => {
                let changed = (!first_answer).then_some(at);
                let seen_to_change = known.is_some();
                let same_holder = known.filter(|known| known.lock.holder == lock.holder);
                let mut view = match same_holder {
                    Some(known) => known.renewed_by(lock, at, changed),
                    None => LockView::new(lock, at, changed),
                };
                view.seen_to_change = seen_to_change;
                Some(view)
            }
        };
    }
}

/// Returns the new error with the time of the first of the failures in a row.
fn since_first_failure<E>(known: &Option<Timestamped<E>>, error: E, at: Instant) -> Timestamped<E> {
    Timestamped {
        value: error,
        at: known.as_ref().map_or(at, |known| known.at),
    }
}

/// Keeps the time at which a value was first seen, if it is the same.
fn unchanged_or_new<T: PartialEq>(known: Option<Timestamped<T>>, new: T, at: Instant) -> Timestamped<T> {
    match known {
        Some(known) if known.value == new => known,
        _ => Timestamped { value: new, at },
    }
}
