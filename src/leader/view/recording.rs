//! Records observations in the view.

use std::time::Instant;

use super::evidence::DcsStatusView;
use super::naming::Naming;
use super::{LockView, MAX_TTL, Objects, Timestamped, View};
use crate::leader::MemberName;
use crate::leader::observation::{Claim, ClusterMember, DcsStatus, Lock, NoReport, ObjectKind, Observation, Report};

impl View {
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
            Claim::Synchronous(kind, newest) => {
                Self::record_standbys(&mut self.objects_mut(kind).synchronous, newest, at);
            }
            Claim::DcsStatuses(statuses) => {
                self.statuses
                    .retain(|name, _| statuses.iter().any(|status| status.name == *name));
                for status in statuses {
                    self.record_status(status, at);
                }
                self.forget_former_members();
            }
            Claim::DcsStatus(status) => self.record_status(status, at),
            Claim::DcsStatusGone(name) => {
                self.statuses.remove(&name);
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
            // No other server shares the IP address of a pod. On any other host, another PostgreSQL server may use the
            // default port, so these members count only if every member is expected in a pod.
            Claim::Failsafe(members) => {
                let in_pods = ObjectKind::IN_KUBERNETES.iter().any(|kind| self.objects(*kind).asked);
                if in_pods && self.statuses.is_empty() && self.listed.is_empty() {
                    self.record_members(members);
                }
            }
            Claim::ClusterUnreachable(why) => self.cluster.unreachable = Some(why),
            Claim::NamedLeader { by, asked, leader } => {
                let naming = Naming::new(self.named.get(&by), leader, asked, at);
                self.named.insert(by, naming);
            }
            Claim::LeaderFailure(member) => {
                self.leader_failures.insert(member, at);
            }
            Claim::PoolerFailure(member, upstream) => {
                self.pooler_failures.insert((member, upstream), at);
            }
            Claim::Held(hold) => self.operator_hold = hold,
            // `only_ours` has already recorded it.
            Claim::Seed(..) => {}
        }
        self.follow_the_lock_to_an_older_timeline(at);
    }

    fn record_status(&mut self, status: DcsStatus, at: Instant) {
        let known = self.statuses.remove(&status.name);
        let moved = known
            .as_ref()
            .is_some_and(|known| known.value.address != status.address || known.value.api_url != status.api_url);
        if moved {
            // The same name at another address is another process, so the former process's answers are not evidence.
            self.answers.remove(&status.name);
        }
        if status.api_url.is_none() {
            let answers = self.answers.entry(status.name.clone()).or_default();
            answers.unreachable = Some(since_first_failure(&answers.unreachable, NoReport::NoUrl, at));
            answers.asked = Some(at);
        }
        if let (true, Some(location)) = (self.leads_by_status(&status), status.xlog_location) {
            self.leader_positions.record(&status.name, location, at);
        }
        let status = DcsStatusView::new(known, status, at);
        self.statuses.insert(status.value.name.clone(), status);
    }

    pub(super) fn record_members(&mut self, members: Vec<ClusterMember>) {
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
        let (statuses, listed) = (&self.statuses, &self.listed);
        let known = |name: &MemberName| statuses.contains_key(name) || listed.contains_key(name);
        self.answers.retain(|name, _| known(name));
        self.leader_failures.retain(|name, _| known(name));
        self.pooler_failures.retain(|(name, _), _| known(name));
        self.named.retain(|name, _| known(name));
    }

    fn objects_mut(&mut self, kind: ObjectKind) -> &mut Objects {
        match kind {
            ObjectKind::Endpoints => &mut self.endpoints,
            ObjectKind::ConfigMap => &mut self.config_maps,
            ObjectKind::EtcdKey => &mut self.etcd_keys,
        }
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

/// Returns the new error with the time of the first failure in the current series.
fn since_first_failure<E>(known: &Option<Timestamped<E>>, error: E, at: Instant) -> Timestamped<E> {
    Timestamped {
        value: error,
        at: known.as_ref().map_or(at, |known| known.at),
    }
}

/// Returns the known value with its time if it is unchanged, else the new value.
fn unchanged_or_new<T: PartialEq>(known: Option<Timestamped<T>>, new: T, at: Instant) -> Timestamped<T> {
    match known {
        Some(known) if known.value == new => known,
        _ => Timestamped { value: new, at },
    }
}
