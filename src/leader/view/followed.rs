//! The cluster that is followed. Answers of other clusters never count; they are kept only to be reported.
//!
//! The scope comes from the settings or from the first verified leader, which also reports the system identifier. The
//! system identifier in the DCS (the annotation `initialize` of the config object, or the key `initialize`) takes
//! precedence: a pod of another cluster that has received a member's former address may answer with the same scope and
//! member name, but not with the same system identifier.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::{LockView, Timestamped, View};
use crate::leader::identity::Identity;
use crate::leader::observation::{Claim, Cluster, NoReport, Report};
use crate::leader::{BaseUrl, MemberName};

/// Time for which the identity at a base URL counts. Base URLs other than the one that answers `/cluster` are asked for
/// their identity every minute, and two of these requests may fail.
const SEED_LIFE: Duration = Duration::from_secs(150);

/// The cluster that is followed, and the others that answered.
#[derive(Clone, Debug, Default)]
pub(super) struct FollowedCluster {
    /// The scope in the settings.
    scope: Option<String>,
    /// The Citus group in the settings.
    group: Option<u32>,
    /// The identity that the first verified leader or the config object reported.
    pinned: Identity,
    /// The system identifier that was followed before the present one.
    former: Option<String>,
    /// Time of the last answer of the followed cluster.
    heard: Option<Instant>,
    /// The identity at each base URL of `--patroni`; `None` for a URL that does not answer.
    seeds: BTreeMap<BaseUrl, Timestamped<Option<Identity>>>,
    /// Members and URLs whose newest answer came from another cluster.
    foreign_clusters: BTreeMap<AnswerOrigin, ForeignCluster>,
    /// The clusters that answer, while it is unknown which of them to follow.
    unclear: Vec<Identity>,
}

/// The origin of an answer: a member's REST API, or a base URL without a known member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerOrigin {
    /// The REST API of the member.
    Member(MemberName),
    /// A base URL of `--patroni`, or the base URL that answered `/cluster`.
    Url(BaseUrl),
}

/// Another cluster that answers at an [`AnswerOrigin`].
#[derive(Clone, Debug)]
pub struct ForeignCluster {
    /// The cluster that answers there.
    pub identity: Identity,
    /// Time of its first answer there.
    pub since: Instant,
    /// Time of its last answer there.
    pub at: Instant,
    /// True if its answer says that it is a running primary.
    writable: bool,
    /// True if its answer says that it holds the lock.
    holds_lock: bool,
}

impl From<MemberName> for AnswerOrigin {
    fn from(member: MemberName) -> Self {
        Self::Member(member)
    }
}

impl fmt::Display for AnswerOrigin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => member.fmt(out),
            Self::Url(url) => url.fmt(out),
        }
    }
}

impl FollowedCluster {
    fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone().or_else(|| self.pinned.scope.clone()),
            system: self.pinned.system.clone(),
        }
    }

    fn record_foreign(&mut self, origin: AnswerOrigin, identity: Identity, report: Option<&Report>, at: Instant) {
        let known = self
            .foreign_clusters
            .remove(&origin)
            .filter(|known| known.identity == identity);
        let since = known.map_or(at, |known| known.since);
        let foreign_cluster = ForeignCluster {
            identity,
            since,
            at,
            writable: report.is_some_and(Report::is_writable),
            holds_lock: report.is_some_and(|report| report.holds_lock),
        };
        self.foreign_clusters.insert(origin, foreign_cluster);
    }

    fn record_ours(&mut self, origin: &AnswerOrigin, theirs: &Identity, at: Instant) {
        self.foreign_clusters.remove(origin);
        // An answer without a system identifier may come from a member that is being initialised, and that may join
        // another cluster.
        if self.identity().is_confirmed_by(theirs) {
            self.heard = Some(at);
        }
    }

    /// Returns true if the followed cluster has not answered for a whole ttl.
    fn is_gone(&self, at: Instant, ttl: Duration) -> bool {
        self.heard.is_none_or(|heard| heard + ttl <= at)
    }
}

impl View {
    /// Returns an empty view of the cluster with this scope and Citus group, as far as the settings have them.
    pub fn of(scope: Option<String>, citus_group: Option<u32>) -> Self {
        let mut view = Self::default();
        view.followed.scope = scope;
        view.followed.group = citus_group;
        view
    }

    /// Returns the identity of the cluster that is followed, as far as it is known.
    pub fn identity(&self) -> Identity {
        self.followed.identity()
    }

    /// Returns the system identifier that the present one has replaced under the same scope.
    pub fn former_system(&self) -> Option<&str> {
        self.followed.former.as_deref()
    }

    /// Returns the members and base URLs at which another cluster answers.
    pub fn foreign_clusters(&self) -> impl Iterator<Item = (&AnswerOrigin, &ForeignCluster)> {
        self.followed.foreign_clusters.iter()
    }

    /// Returns the other cluster that answers at this member's address.
    pub fn foreign_cluster(&self, member: &MemberName) -> Option<&ForeignCluster> {
        self.followed
            .foreign_clusters
            .get(&AnswerOrigin::Member(member.clone()))
    }

    /// Returns the clusters that answer, while it is unknown which of them to follow.
    pub fn unclear(&self) -> &[Identity] {
        &self.followed.unclear
    }

    /// Returns the Citus groups of pods that are not the group in the settings.
    pub fn groups_not_named(&self) -> Vec<u32> {
        let groups = self.statuses.values().filter_map(|status| status.value.citus_group);
        let mut groups: Vec<_> = groups.filter(|group| Some(*group) != self.followed.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Drops claims of other clusters, and records the clusters. Turns a member's answer that
    /// [`not_ours`](Self::not_ours) rejects into an error of that member.
    pub(super) fn only_ours(&mut self, claim: Claim, at: Instant) -> Option<Claim> {
        match claim {
            Claim::Report(member, Ok(report)) => Some(match self.not_ours(&member, &report, at) {
                Some(why) => Claim::Report(member, Err(why)),
                None => Claim::Report(member, Ok(report)),
            }),
            Claim::Cluster(cluster) => self.our_cluster(cluster, at).map(Claim::Cluster),
            // A leader that another cluster names is irrelevant.
            Claim::NamedLeader { by, .. } if self.foreign_cluster(&by).is_some() => None,
            Claim::Seed(url, identity) => {
                match &identity {
                    Some(theirs) if self.identity().contradicts(theirs) => {
                        self.followed
                            .record_foreign(AnswerOrigin::Url(url.clone()), theirs.clone(), None, at)
                    }
                    Some(_) => _ = self.followed.foreign_clusters.remove(&AnswerOrigin::Url(url.clone())),
                    None => {}
                }
                self.followed.seeds.insert(url, Timestamped { value: identity, at });
                None
            }
            claim => Some(claim),
        }
    }

    /// Returns the reason why a member's answer does not count as an answer of the followed cluster; `None` if it
    /// counts.
    fn not_ours(&mut self, member: &MemberName, report: &Report, at: Instant) -> Option<NoReport> {
        let (ours, theirs) = (self.identity(), report.identity());
        if ours.contradicts(&theirs) {
            let no_report = NoReport::OtherCluster {
                theirs: theirs.clone(),
                ours,
            };
            self.followed
                .record_foreign(AnswerOrigin::Member(member.clone()), theirs, Some(report), at);
            return Some(no_report);
        }
        if !report.names_member && !ours.is_confirmed_by(&theirs) {
            return Some(NoReport::Unproven { theirs, ours });
        }
        self.followed
            .record_ours(&AnswerOrigin::Member(member.clone()), &theirs, at);
        None
    }

    /// Returns the answer to `/cluster`, unless it comes from another cluster. If that cluster may be the followed one
    /// after a new initialisation, records its members, so that they are asked. Their answers then decide.
    fn our_cluster(&mut self, cluster: Cluster, at: Instant) -> Option<Cluster> {
        let (ours, theirs) = (self.identity(), cluster.identity());
        if !ours.contradicts(&theirs) {
            self.followed
                .record_ours(&AnswerOrigin::Url(cluster.from.clone()), &theirs, at);
            return Some(cluster);
        }
        let may_be_reinitialized = !ours.has_another_scope_than(&theirs) && self.is_replaced_by(&theirs, at);
        self.followed
            .record_foreign(AnswerOrigin::Url(cluster.from.clone()), theirs, None, at);
        if may_be_reinitialized {
            self.record_members(cluster.members);
        }
        None
    }

    /// Determines which cluster is followed, after each observation.
    pub(super) fn identify(&mut self, at: Instant) {
        self.forget_foreign_clusters(at);
        let configured = self.settings().and_then(|settings| settings.system.clone());
        let watched = self.lock().filter(|_| self.api_unreachable().is_none());
        let found = match (configured, watched) {
            (Some(system), _) => Some(Identity {
                scope: None,
                system: Some(system),
            }),
            (None, Some(lock)) => self.by_the_holder(lock),
            (None, None) => self.by_answers_alone(at),
        };
        if let Some(found) = found {
            self.follow(found, at);
        }
        self.followed.unclear = self.contradictions(at);
    }

    /// Returns the identity that the lock's holder reports. A new system identifier counts once the holder has renewed
    /// the lock after first reporting it.
    fn by_the_holder(&self, lock: &LockView) -> Option<Identity> {
        let holder = lock.lock.holder.as_ref()?;
        if let Some(foreign_cluster) = self.foreign_cluster(holder) {
            let renewed_since = lock.changed.is_some_and(|changed| foreign_cluster.since < changed);
            return (renewed_since && self.may_take_over(foreign_cluster)).then(|| foreign_cluster.identity.clone());
        }
        let last = self.answers.get(holder)?.last.as_ref()?;
        let since_it_holds = lock.held_since.is_none_or(|since| since <= last.at);
        (since_it_holds && last.value.is_writable()).then(|| last.value.identity())
    }

    /// Returns the identity that the leader reports, for the case that no lock is watched. A new system identifier
    /// counts once the former one has not been reported for a whole ttl and most members, or most URLs of `--patroni`,
    /// report the new one.
    fn by_answers_alone(&self, at: Instant) -> Option<Identity> {
        if self.followed.pinned.system.is_none() {
            if self.lock().is_none() && !self.groups_not_named().is_empty() {
                return None;
            }
            let answers = self.answers.values().filter(|answers| answers.unreachable.is_none());
            let mut recent = answers
                .filter_map(|answers| answers.last.as_ref())
                .filter(|last| at < last.at + self.ttl());
            let leader = recent.find(|last| last.value.holds_lock && last.value.is_writable());
            return leader
                .filter(|_| self.contradictions(at).is_empty())
                .map(|leader| leader.value.identity());
        }
        let mut of_members = self.members().filter_map(|member| self.foreign_cluster(member));
        let leader =
            of_members.find(|foreign_cluster| foreign_cluster.holds_lock && self.may_take_over(foreign_cluster))?;
        self.is_replaced_by(&leader.identity, at)
            .then(|| leader.identity.clone())
    }

    /// Returns true if the followed cluster has not answered for a whole ttl, and most members or most URLs of
    /// `--patroni` report `identity` instead. One wrong URL among several, or one host that now belongs to another
    /// cluster, is not a majority.
    fn is_replaced_by(&self, identity: &Identity, at: Instant) -> bool {
        let of_members = self.members().filter_map(|member| self.foreign_cluster(member));
        let members = of_members
            .filter(|foreign_cluster| foreign_cluster.identity == *identity)
            .count();
        let seeds = self.followed.seeds.values();
        let seeds = seeds.filter(|seed| seed.value.as_ref() == Some(identity)).count();
        let most = self.members().count() < 2 * members || self.followed.seeds.len() < 2 * seeds;
        most && self.followed.is_gone(at, self.ttl())
    }

    fn may_take_over(&self, foreign_cluster: &ForeignCluster) -> bool {
        foreign_cluster.writable
            && foreign_cluster.identity.system.is_some()
            && !self.identity().has_another_scope_than(&foreign_cluster.identity)
    }

    fn follow(&mut self, found: Identity, at: Instant) {
        let pinned = &mut self.followed.pinned;
        let scope = pinned.scope.clone().or(found.scope);
        let system = found.system.or_else(|| pinned.system.clone());
        if (&pinned.scope, &pinned.system) == (&scope, &system) {
            return;
        }
        if pinned.system.is_some() && pinned.system != system {
            self.followed.former = pinned.system.take();
        }
        self.followed.pinned = Identity { scope, system };
        self.drop_foreign_answers(at);
    }

    /// Drops recorded answers that turn out to come from another cluster.
    fn drop_foreign_answers(&mut self, at: Instant) {
        let ours = self.identity();
        for (member, answers) in &mut self.answers {
            let Some(last) = answers.last.take_if(|last| ours.contradicts(&last.value.identity())) else {
                continue;
            };
            let theirs = last.value.identity();
            answers.failsafe_seen = None;
            answers.unreachable = Some(Timestamped {
                value: NoReport::OtherCluster {
                    theirs: theirs.clone(),
                    ours: ours.clone(),
                },
                at: last.at,
            });
            self.last_answers.remove(member);
            self.followed
                .record_foreign(AnswerOrigin::Member(member.clone()), theirs, Some(&last.value), at);
        }
        let seeds = self.followed.seeds.clone();
        for (url, seed) in seeds {
            if let Some(theirs) = seed.value.filter(|theirs| ours.contradicts(theirs)) {
                self.followed
                    .record_foreign(AnswerOrigin::Url(url.clone()), theirs, None, seed.at);
            }
        }
        self.followed
            .foreign_clusters
            .retain(|_, foreign_cluster| ours.contradicts(&foreign_cluster.identity));
        let timeline = self.newest_timeline.take();
        self.newest_timeline = timeline.filter(|newest| ours.system.as_ref().is_none_or(|ours| *ours == newest.system));
    }

    /// Forgets other clusters that have not answered recently, or whose member is gone or has moved.
    fn forget_foreign_clusters(&mut self, at: Instant) {
        let ttl = self.ttl();
        let answers = &self.answers;
        self.followed.seeds.retain(|_, seed| at < seed.at + SEED_LIFE);
        self.followed.foreign_clusters.retain(|origin, foreign_cluster| {
            let (life, is_known) = match origin {
                AnswerOrigin::Url(_) => (SEED_LIFE, true),
                AnswerOrigin::Member(member) => (ttl, answers.contains_key(member)),
            };
            is_known && at < foreign_cluster.at + life
        });
    }

    /// Returns the answering clusters that contradict each other and could each be the one to follow.
    fn contradictions(&self, at: Instant) -> Vec<Identity> {
        if self.followed.pinned.system.is_some() {
            return Vec::new();
        }
        let (ours, ttl) = (self.identity(), self.ttl());
        let last = self.answers.values().filter_map(|answers| answers.last.as_ref());
        let reported = last.filter(|last| at < last.at + ttl).map(|last| last.value.identity());
        let seeds = self.followed.seeds.values().filter_map(|seed| seed.value.clone());
        let mut heard: Vec<_> = reported
            .chain(seeds)
            .filter(|theirs| !ours.contradicts(theirs))
            .collect();
        heard.sort();
        heard.dedup();
        let is_contradicted = |one: &Identity| heard.iter().any(|other| one.contradicts(other));
        heard.iter().filter(|one| is_contradicted(one)).cloned().collect()
    }
}
