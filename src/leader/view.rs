//! The newest observation of each source, with its local time of arrival.
//!
//! A source that fails grows old; it never claims that there is no leader. What follows from all this is decided in
//! `decide`.

mod evidence;
mod followed;
mod lock;
mod naming;
mod renewals;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::leader::observation::{
    Announcement, Claim, ClusterMember, ClusterSettings, Condition, Lock, ObjectKind, Observation, OperatorHold, Pod,
    Report,
};
use crate::leader::view::evidence::{NewestTimeline, PodView};
use crate::leader::view::followed::FollowedCluster;
pub use crate::leader::view::followed::{Place, Stranger};
pub use crate::leader::view::lock::LockView;
use crate::leader::view::naming::Named;
pub use crate::leader::view::naming::WORD_STANDS_FOR;
use crate::leader::{Address, BaseUrl, MemberName};

/// Patroni's default, until the cluster has told its own.
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Whoever is asked at all is asked more often.
const LATELY: Duration = Duration::from_secs(10);
/// Nobody can be asked without an address: the pod's status has to serve.
const NO_API_URL: &str = "its pod's status names no usable api_url";
/// Words older than any lease need not be kept.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is known now.
#[derive(Clone, Debug, Default)]
pub struct View {
    endpoints: Objects,
    config_maps: Objects,
    pods: BTreeMap<MemberName, PodView>,
    listed: BTreeMap<MemberName, ClusterMember>,
    answers: BTreeMap<MemberName, Answers>,
    leader_failures: BTreeMap<MemberName, Instant>,
    cluster: ClusterNews,
    newest_timeline: Option<NewestTimeline>,
    /// When each member last answered. It outlives the member's pod and row: forgetting it would start a lease anew.
    last_words: BTreeMap<MemberName, Instant>,
    named: Named,
    operator_hold: Option<OperatorHold>,
    followed: FollowedCluster,
}

/// A value and when it last changed here.
#[derive(Clone, Debug)]
pub struct Heard<T> {
    /// The value.
    pub value: T,
    /// When this value was first seen.
    pub at: Instant,
}

/// Patroni's objects of one kind.
#[derive(Clone, Debug, Default)]
struct Objects {
    lock: Option<LockView>,
    asked: bool,
    answered: bool,
    silent: Option<Heard<String>>,
    announcement: Option<Heard<Announcement>>,
    settings: Option<ClusterSettings>,
}

/// What a member's REST API said.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The newest answer. It stays while the member is silent.
    pub last: Option<Heard<Report>>,
    /// When it last said that it leads in failsafe mode.
    pub failsafe_seen: Option<Instant>,
    /// The newest request got no answer: since when this is so, and why.
    pub silent: Option<Heard<String>>,
    /// When the newest request came out, one way or the other.
    pub asked: Option<Instant>,
}

/// What `/cluster` said beside the members.
#[derive(Clone, Debug, Default)]
struct ClusterNews {
    answered: bool,
    scope: Option<String>,
    /// When the newest answer came.
    at: Option<Instant>,
    paused: bool,
    switchover: Option<Heard<Announcement>>,
    ttl: Option<Duration>,
    race_backoff: Option<Duration>,
    /// Who was named as leader last, and when that was said last.
    leader: Option<Heard<MemberName>>,
    silent: Option<String>,
}

impl View {
    /// Takes in one observation.
    pub fn record(&mut self, observation: Observation) {
        let Observation { at, claim } = observation;
        if let Some(claim) = self.only_ours(claim, at) {
            self.take_in(claim, at);
        }
        self.identify(at);
    }

    fn take_in(&mut self, claim: Claim, at: Instant) {
        match claim {
            Claim::Lock(kind, lock) => self.objects_mut(kind).record_lock(lock, at),
            Claim::Watching(kind) => self.objects_mut(kind).asked = true,
            Claim::ApiSilent(kind, why) => {
                self.objects_mut(kind).silent = Some(first(&self.objects(kind).silent, why, at))
            }
            Claim::Announcement(kind, news) => {
                let known = &mut self.objects_mut(kind).announcement;
                *known = news.map(|news| unchanged_or_new(known.take(), news, at));
            }
            Claim::Settings(kind, settings) => self.objects_mut(kind).settings = settings,
            Claim::Pods(pods) => {
                self.pods.retain(|name, _| pods.iter().any(|pod| pod.name == *name));
                for pod in pods {
                    self.record_pod(pod, at);
                }
                self.forget_the_gone();
            }
            Claim::Pod(pod) => self.record_pod(pod, at),
            Claim::PodGone(name) => {
                self.pods.remove(&name);
                self.forget_the_gone();
            }
            Claim::Report(member, Ok(report)) => self.record_report(member, report, at),
            Claim::Report(member, Err(why)) => {
                let answers = self.answers.entry(member).or_default();
                answers.silent = Some(first(&answers.silent, why, at));
                answers.asked = Some(at);
            }
            Claim::Cluster(cluster) => {
                let news = &mut self.cluster;
                news.answered = true;
                news.at = Some(at);
                news.silent = None;
                news.scope = cluster.scope.or(news.scope.take());
                news.paused = cluster.paused;
                news.ttl = cluster.ttl.or(news.ttl);
                news.race_backoff = cluster.race_backoff.or(news.race_backoff);
                news.leader = cluster.leader.map(|value| Heard { value, at });
                let known = news.switchover.take();
                news.switchover = cluster.switchover.map(|new| unchanged_or_new(known, new, at));
                self.record_members(cluster.members);
            }
            // A pod's host is its own; on any other, another PostgreSQL may have the default port.
            Claim::Failsafe(members) => {
                let in_pods = ObjectKind::ALL.iter().any(|kind| self.objects(*kind).asked);
                if in_pods && self.pods.is_empty() && self.listed.is_empty() {
                    self.record_members(members);
                }
            }
            Claim::ClusterSilent(why) => self.cluster.silent = Some(why),
            Claim::Named(member, leader) => _ = self.named.insert(member, Heard { value: leader, at }),
            Claim::LeaderFailure(member) => {
                self.leader_failures.insert(member, at);
            }
            Claim::Held(hold) => self.operator_hold = hold,
            // Of interest to `only_ours` alone.
            Claim::Seed(..) => {}
        }
        self.follow_the_lock_to_an_older_timeline();
    }

    fn record_pod(&mut self, pod: Pod, at: Instant) {
        let known = self.pods.remove(&pod.name);
        let moved = known
            .as_ref()
            .is_some_and(|known| known.value.address != pod.address || known.value.api_url != pod.api_url);
        if moved {
            // The same name at another place is another process: what the former one said is no evidence.
            self.answers.remove(&pod.name);
        }
        if pod.api_url.is_none() {
            let answers = self.answers.entry(pod.name.clone()).or_default();
            answers.silent = Some(first(&answers.silent, NO_API_URL.to_owned(), at));
            answers.asked = Some(at);
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
        self.forget_the_gone();
    }

    fn record_report(&mut self, member: MemberName, report: Report, at: Instant) {
        self.note_timeline(&report);
        self.last_words
            .retain(|_, heard| at.saturating_duration_since(*heard) < MAX_TTL);
        self.last_words.insert(member.clone(), at);
        let answers = self.answers.entry(member).or_default();
        if report.failsafe_active && report.is_writable() {
            answers.failsafe_seen = Some(at);
        }
        answers.last = Some(Heard { value: report, at });
        answers.asked = Some(at);
        answers.silent = None;
    }

    fn forget_the_gone(&mut self) {
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
        }
    }

    fn objects_mut(&mut self, kind: ObjectKind) -> &mut Objects {
        match kind {
            ObjectKind::Endpoints => &mut self.endpoints,
            ObjectKind::ConfigMap => &mut self.config_maps,
        }
    }

    /// The kind of object that Patroni keeps its lock in: where both exist, during a migration, the one renewed last.
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

    /// The lock in use.
    pub fn lock(&self) -> Option<&LockView> {
        self.objects(self.kind()?).lock.as_ref()
    }

    /// Why the Kubernetes API cannot be believed now; `None` while it answers for the lock in use.
    pub fn api_silence(&self) -> Option<&str> {
        let silence = |kind: ObjectKind| self.objects(kind).silent.as_ref().map(|heard| heard.value.as_str());
        match self.kind() {
            Some(kind) => silence(kind),
            // No lock seen: it may be of the kind that does not answer, or that may not be read.
            None => ObjectKind::ALL.into_iter().find_map(silence),
        }
    }

    /// A leader object is asked for, and nothing was heard of it yet, no error either: it may be the lock.
    pub fn awaits_a_leader_object(&self) -> bool {
        let unheard = |objects: &Objects| objects.asked && !objects.answered && objects.silent.is_none();
        ObjectKind::ALL.iter().any(|kind| unheard(self.objects(*kind)))
    }

    /// Whether the Kubernetes API has answered for a leader object, ever.
    pub fn api_answered(&self) -> bool {
        ObjectKind::ALL.iter().any(|kind| self.objects(*kind).answered)
    }

    /// The announced switchover, and since when it is known.
    pub fn announcement(&self) -> Option<&Heard<Announcement>> {
        match self.kind() {
            Some(kind) => self.objects(kind).announcement.as_ref(),
            None => self.cluster.switchover.as_ref(),
        }
    }

    /// Nobody is promoted by itself now.
    pub fn is_paused(&self) -> bool {
        self.settings().map_or(self.cluster.paused, |settings| settings.paused)
    }

    /// The cluster follows another one: its leader is no primary.
    pub fn is_standby_cluster(&self) -> bool {
        self.settings().is_some_and(|settings| settings.standby_cluster)
    }

    fn settings(&self) -> Option<&ClusterSettings> {
        self.objects(self.kind()?).settings.as_ref()
    }

    /// How long standbys may put the race for a lost lock off while the leader writes; zero while Patroni would not
    /// (its master's ha.py, `process_unhealthy_cluster`).
    pub fn race_backoff(&self) -> Duration {
        let never = self.is_paused() || self.is_standby_cluster();
        let candidate = self.announcement().is_some_and(|heard| heard.value.candidate.is_some());
        let of_settings = self.settings().map(|settings| settings.race_backoff);
        match never || candidate {
            true => Duration::ZERO,
            false => of_settings.or(self.cluster.race_backoff).unwrap_or_default(),
        }
    }

    /// The lock's ttl.
    pub fn ttl(&self) -> Duration {
        let of_lock = self.lock().map(|view| view.lock.ttl);
        of_lock.or(self.cluster.ttl).unwrap_or(DEFAULT_TTL)
    }

    /// Whether any member's REST API has answered, ever.
    pub fn rest_answered(&self) -> bool {
        self.cluster.answered || self.answers.values().any(|answers| answers.last.is_some())
    }

    /// Whether a member's REST API has answered the newest request to it, and lately: an old answer of a member that is
    /// no longer asked says nothing.
    pub fn rest_answers(&self, member: &MemberName, now: Instant) -> bool {
        let answers = self.answers.get(member).filter(|answers| answers.silent.is_none());
        let last = answers.and_then(|answers| answers.last.as_ref());
        last.is_some_and(|last| now < last.at + LATELY)
    }

    /// When a leader's right to be one was last seen: its lock renewed, or its report. `None` if never.
    pub fn last_evidence(&self, member: Option<&MemberName>) -> Option<Instant> {
        let member = member?;
        let lock = self.lock().filter(|view| view.lock.holder.as_ref() == Some(member));
        lock.map(|view| view.renewed).max(self.last_words.get(member).copied())
    }

    /// When the lease of the leader, or of the lock's holder, was last seen renewed: the lock while it is watched,
    /// which a leader that answers may fail to renew; any evidence where there is none to watch.
    pub fn renewal_seen(&self, member: &MemberName) -> Option<Instant> {
        let watched = self.lock().filter(|_| self.api_silence().is_none());
        match watched.filter(|view| view.lock.holder.as_ref() == Some(member)) {
            Some(view) => Some(view.renewed),
            None => self.last_evidence(Some(member)),
        }
    }

    /// Patroni's scope, as members tell it.
    pub fn scope(&self) -> Option<&str> {
        self.cluster.scope.as_deref()
    }

    /// Since a member's last word `/cluster` has named another one as leader.
    pub fn is_succeeded(&self, member: &MemberName) -> bool {
        let named = self.cluster.leader.as_ref().filter(|named| named.value != *member);
        named.is_some_and(|named| self.last_words.get(member).is_none_or(|heard| *heard < named.at))
    }

    /// Why no member answers `/cluster`, if none does.
    pub fn cluster_silence(&self) -> Option<&str> {
        self.cluster.silent.as_deref()
    }

    /// The members' names, from pods and `/cluster`.
    pub fn members(&self) -> impl Iterator<Item = &MemberName> {
        let only_listed = self.listed.keys().filter(|name| !self.pods.contains_key(*name));
        self.pods.keys().chain(only_listed)
    }

    /// Where a member's PostgreSQL listens, or what stands in the way of knowing.
    pub fn address(&self, member: &MemberName) -> Result<Address, String> {
        match (self.pods.get(member), self.listed.get(member)) {
            (Some(pod), listed) => pod
                .value
                .address
                .clone()
                .or_else(|why| listed.and_then(|listed| listed.address.clone()).ok_or(why)),
            (None, Some(listed)) => listed
                .address
                .clone()
                .ok_or_else(|| format!("/cluster gives no host and port for member {member}")),
            (None, None) => Err(format!("no pod and no row of /cluster is named {member}")),
        }
    }

    /// The base URL of a member's REST API.
    pub fn api_url(&self, member: &MemberName) -> Option<&BaseUrl> {
        let of_pod = self.pods.get(member).and_then(|pod| pod.value.api_url.as_ref());
        of_pod.or_else(|| self.listed.get(member).and_then(|listed| listed.api_url.as_ref()))
    }

    /// What the newest answer to `/cluster` says of a member, and when it came.
    pub fn condition(&self, member: &MemberName) -> Option<(&Condition, Instant)> {
        Some((&self.listed.get(member)?.condition, self.cluster.at?))
    }

    /// What a member's REST API said.
    pub fn answers(&self, member: &MemberName) -> Option<&Answers> {
        self.answers.get(member)
    }

    /// The hold that an operator asked for. Once it has ended it holds nobody, and stays until it is taken back.
    pub fn operator_hold(&self) -> Option<&OperatorHold> {
        self.operator_hold.as_ref()
    }

    /// When the proxy last complained about a member.
    pub fn complaint(&self, member: &MemberName) -> Option<Instant> {
        self.leader_failures.get(member).copied()
    }
}

impl Objects {
    fn record_lock(&mut self, lock: Option<Lock>, at: Instant) {
        let first_answer = !std::mem::replace(&mut self.answered, true);
        let silent_for = self.silent.take().map(|silent| at.saturating_duration_since(silent.at));
        let known = self
            .lock
            .take()
            .map(|known| known.after_silence(silent_for.unwrap_or_default()));
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

/// Keeps the time at which a silence began.
fn first(known: &Option<Heard<String>>, why: String, at: Instant) -> Heard<String> {
    Heard {
        value: why,
        at: known.as_ref().map_or(at, |known| known.at),
    }
}

fn unchanged_or_new<T: PartialEq>(known: Option<Heard<T>>, new: T, at: Instant) -> Heard<T> {
    match known {
        Some(known) if known.value == new => known,
        _ => Heard { value: new, at },
    }
}
