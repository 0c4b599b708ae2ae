//! Who is leader now, and why: one function, pure and total. No I/O, no clock.
//!
//! The lock, while it is fresh, says *who*; the body of that member's REST answer says *whether it is writable yet*. Without the lock (no Kubernetes, or
//! its API is silent) the members' REST answers decide alone.

mod clusters;
mod decision;
mod reports;

use std::time::{Duration, Instant};

use crate::leader::observation::{Pod, Report, Role};
use crate::leader::reason::{NoLock, Reason};
use crate::leader::view::{Heard, LockView, View};
use crate::leader::{Leader, MemberName, RoutingState};
use decision::decision;
pub use decision::{Decision, Held};

/// So long before a lock expires nobody new is sent to its leader: who logs in now would be cut in the middle of it. A lease that is renewed in time never
/// gets there.
const EXPIRY_MARGIN: Duration = Duration::from_millis(500);

/// What the operator may choose.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long an announced switchover holds new clients while the leader still runs.
    pub switchover_hold: Duration,
    /// Without a lock to go by, how long an answer of a member's REST API stands.
    pub report_life: Duration,
}

/// How a member stands, judged from its newest report.
enum Standing {
    /// Its REST API says so, on this timeline.
    Writable(Option<u32>),
    /// Its pod's status says so, on this timeline; why the REST API is silent.
    WritableByPod(Option<u32>, String),
    /// It is not writable, and what stands in the way.
    Not(String),
    /// It leads a standby cluster.
    StandbyLeader,
    /// Nothing to go by, and why.
    Silent(String),
}

/// Decides. `current` is the leader whose sessions live now.
pub fn decide(view: &View, current: Option<&Leader>, now: Instant, policy: &Policy) -> Decision {
    let case = Case {
        view,
        current,
        now,
        policy,
    };
    let decision = match (view.lock(), view.api_silence()) {
        (Some(lock), None) => case.by_lock(lock),
        (None, _) if view.awaits_a_leader_object() => {
            decision(RoutingState::Hold(current.cloned()), Reason::LockUnread)
        }
        (_, Some(why)) => case.by_reports(&NoLock::ApiSilent(why.to_owned())),
        (None, None) if view.api_answered() => case.by_reports(&NoLock::NoObject),
        (None, None) => case.by_reports(&NoLock::RestOnly),
    };
    decision.held_by(view.operator_hold(), now)
}

struct Case<'a> {
    view: &'a View,
    current: Option<&'a Leader>,
    now: Instant,
    policy: &'a Policy,
}

impl Case<'_> {
    fn by_lock(&self, lock: &LockView) -> Decision {
        let Some(holder) = lock.lock.holder.as_ref() else {
            return self.released();
        };
        if self.view.is_standby_cluster() {
            return decision(RoutingState::Hold(None), Reason::StandbyCluster(holder.clone()));
        }
        let leader = match self.leader(holder) {
            Ok(leader) => leader,
            Err(why) => return decision(RoutingState::Hold(None), Reason::NoAddress(holder.clone(), why)),
        };
        if lock.lock_expiry() <= self.now {
            return self.expired(lock, leader);
        }
        let margin_start = lock.lock_expiry() - EXPIRY_MARGIN;
        if margin_start <= self.now && !self.outlives_the_lock(lock, &leader.member) {
            let reason = Reason::LockExpiring(leader.member.clone());
            let kept = self.is_current(&leader).then_some(leader);
            return decision(RoutingState::Hold(kept), reason).recheck_by(lock.lock_expiry());
        }
        self.held_by(leader, lock.held_since)
            .recheck_by(lock.lock_expiry())
            .recheck_at((self.now < margin_start).then_some(margin_start))
            .recheck_at(self.announcement_starts())
    }

    /// Whether the end of the lease will not end its time.
    fn outlives_the_lock(&self, lock: &LockView, member: &MemberName) -> bool {
        let vouched = self.view.answers(member).and_then(|answers| answers.vouched);
        self.view.is_paused() || vouched.is_some_and(|vouched| lock.renewed < vouched)
    }

    /// The lock is fresh. A leader whose sessions live already needs no word of its REST API to go on: a hiccup changes nothing. Another one must have said
    /// that it is writable, since it holds the lock; until then the sessions to any other end.
    fn held_by(&self, leader: Leader, held_since: Option<Instant>) -> Decision {
        let member = leader.member.clone();
        if let Some(stranger) = self.view.stranger(&member) {
            let reason = self.another_cluster(&member, stranger);
            return decision(RoutingState::Hold(self.is_current(&leader).then_some(leader)), reason);
        }
        let (timeline, reason) = match self.standing(&member, held_since) {
            Standing::Writable(timeline) => (timeline, Reason::LockAndReport(member.clone())),
            Standing::WritableByPod(timeline, why) => (timeline, Reason::LockAndPodStatus(member.clone(), why)),
            Standing::Silent(why) if self.is_current(&leader) => {
                (leader.timeline, Reason::LockAlone(member.clone(), why))
            }
            Standing::Silent(why) => return decision(RoutingState::Hold(None), Reason::Unverified(member, why)),
            Standing::StandbyLeader => return decision(RoutingState::Hold(None), Reason::StandbyCluster(member)),
            Standing::Not(what) => {
                let kept = self.is_current(&leader).then_some(leader);
                return decision(RoutingState::Hold(kept), Reason::NotWritable(member, what));
            }
        };
        self.unless_announced(Leader { timeline, ..leader }, reason)
    }

    /// Routes, but for an announced switchover, which holds new clients for a while.
    fn unless_announced(&self, leader: Leader, reason: Reason) -> Decision {
        match self.announced(&leader.member) {
            Some((candidate, until)) => {
                let reason = Reason::SwitchoverAnnounced(leader.member.clone(), candidate);
                decision(RoutingState::Hold(Some(leader)), reason).recheck_by(until)
            }
            None => decision(RoutingState::Route(leader), reason),
        }
    }

    fn released(&self) -> Decision {
        let paused_primary = self.current.filter(|current| {
            let standing = self.standing(&current.member, None);
            self.view.is_paused() && matches!(standing, Standing::Writable(_) | Standing::WritableByPod(..))
        });
        match paused_primary {
            Some(current) => decision(
                RoutingState::Hold(Some(current.clone())),
                Reason::ReleasedInPause(current.member.clone()),
            ),
            None => decision(RoutingState::Hold(None), Reason::Released),
        }
    }

    fn expired(&self, lock: &LockView, leader: Leader) -> Decision {
        let member = leader.member.clone();
        let answers = self.view.answers(&member);
        // Patroni drops the flag once it has renewed the lock: an answer that says so may overtake the watch.
        if let Some((last, vouched)) = answers.and_then(|answers| answers.last.as_ref().zip(answers.vouched))
            && (last.value.failsafe_active || last.value.holds_lock)
            && last.value.is_writable()
            && self.now < vouched + lock.lock.ttl
            && self
                .lower_timeline(&member, last.value.timeline, last.value.system.as_deref())
                .is_none()
            && self.view.stranger(&member).is_none()
        {
            let leader = Leader {
                timeline: last.value.timeline,
                ..leader
            };
            return decision(RoutingState::Route(leader), Reason::Failsafe(member)).recheck_by(vouched + lock.lock.ttl);
        }
        // In pause nobody is promoted by itself, so an old lock proves nothing against a leader that was verified before.
        if self.view.is_paused() && self.is_current(&leader) {
            return match self.standing(&member, None) {
                Standing::Not(what) => decision(RoutingState::Hold(Some(leader)), Reason::NotWritable(member, what)),
                Standing::StandbyLeader => decision(RoutingState::Hold(None), Reason::StandbyCluster(member)),
                Standing::Writable(_) | Standing::WritableByPod(..) | Standing::Silent(_) => {
                    decision(RoutingState::Route(leader), Reason::ExpiredInPause(member))
                }
            };
        }
        if self.is_current(&leader)
            && let Some(decision) = self.race_put_off(&leader, lock.lock_expiry())
        {
            return decision;
        }
        decision(RoutingState::Fence, Reason::LockExpired(member, lock.lock.ttl))
    }

    /// A lease that ran out means a race for the lock only after `primary_race_backoff`, as long as the leader's WAL goes on: a fence would stop it, and so make
    /// the failover that is being avoided. A leader that says that it is no primary writes nothing.
    fn race_put_off(&self, leader: &Leader, lock_expiry: Instant) -> Option<Decision> {
        let backoff = self.view.race_backoff();
        let end = lock_expiry + backoff;
        let is_no_primary = matches!(
            self.standing(&leader.member, None),
            Standing::Not(_) | Standing::StandbyLeader
        );
        (self.now < end && !is_no_primary).then(|| {
            let reason = Reason::RaceBackoff(leader.member.clone(), backoff);
            decision(RoutingState::Hold(Some(leader.clone())), reason).recheck_by(end)
        })
    }

    /// How a member stands, by its REST API's newest answer, or, while that is silent, by its pod's `status` if that is newer ([`View::pod_as_of`]; Patroni writes
    /// it about a second late). That it is writable counts only if it was said since `since`; that it is not, always.
    fn standing(&self, member: &MemberName, since: Option<Instant>) -> Standing {
        if let Some(stranger) = self.view.stranger(member) {
            return Standing::Not(format!("another cluster answers there, {}", stranger.identity));
        }
        let answers = self.view.answers(member);
        let last = answers.and_then(|answers| answers.last.as_ref());
        // A silence from before `since` is as old as an answer from before it.
        let asked_since =
            answers.is_some_and(|answers| since.is_none_or(|since| answers.asked.is_some_and(|asked| since <= asked)));
        let silence = answers
            .and_then(|answers| answers.silent.as_ref())
            .filter(|_| asked_since);
        let as_of = self.view.pod_as_of(member);
        let newer_than = |last: &Heard<Report>| as_of.is_some_and(|as_of| last.at < as_of);
        let pod = self
            .view
            .pod(member)
            .filter(|pod| silence.is_some() && pod.value.role.is_some() && last.is_none_or(newer_than));
        let why = || {
            silence
                .map_or("it has not answered yet", |silence| &silence.value)
                .to_owned()
        };
        let late = |at: Option<Instant>| since.is_some_and(|since| at < Some(since));
        let (standing, too_old) = match (pod, last) {
            (Some(pod), _) => (self.standing_by_pod(&pod.value, why()), late(as_of)),
            (None, Some(last)) => (
                self.standing_by_report(member, &last.value),
                late(Some(last.at)) || silence.is_some(),
            ),
            (None, None) => (Standing::Silent(why()), false),
        };
        match standing {
            Standing::Writable(_) | Standing::WritableByPod(..) if too_old => Standing::Silent(why()),
            standing => standing,
        }
    }

    fn standing_by_report(&self, member: &MemberName, report: &Report) -> Standing {
        match report.role {
            Role::StandbyLeader => Standing::StandbyLeader,
            Role::Other => Standing::Not(format!("it is still in recovery (state {:?})", report.state)),
            Role::Primary if !report.is_writable() => Standing::Not(format!("its state is {:?}", report.state)),
            Role::Primary => match self.lower_timeline(member, report.timeline, report.system.as_deref()) {
                Some(what) => Standing::Not(what),
                None => Standing::Writable(report.timeline),
            },
        }
    }

    fn standing_by_pod(&self, pod: &Pod, why: String) -> Standing {
        let role = pod.role.as_deref().map_or(Role::Other, Role::from_patroni);
        let running = pod.state.as_deref() == Some("running");
        let lower_timeline = self.lower_timeline(&pod.name, pod.timeline, self.view.system_of(&pod.name));
        match (role, lower_timeline) {
            (Role::StandbyLeader, _) => Standing::StandbyLeader,
            (Role::Primary, None) if running => Standing::WritableByPod(pod.timeline, why),
            (Role::Primary, Some(what)) if running => Standing::Not(what),
            _ => {
                let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
                let (role, state) = (word(&pod.role), word(&pod.state));
                Standing::Not(format!(
                    "its pod's status says role {role}, state {state}; its REST API does not answer: {why}"
                ))
            }
        }
    }

    /// Why a member's timeline speaks against it, and what ends that.
    fn lower_timeline(&self, member: &MemberName, timeline: Option<u32>, system: Option<&str>) -> Option<String> {
        let newest = self.view.newer_timeline_than(timeline, system)?;
        let timeline = timeline.unwrap_or_default();
        let then = match self.view.lock() {
            Some(_) => format!("clients go to it once {member} has renewed the leader lock for its whole ttl"),
            None => format!("if the cluster was restored onto timeline {timeline} on purpose, restart pgnorth"),
        };
        Some(format!(
            "it is on timeline {timeline}, and a leader was seen on timeline {newest}; {then}"
        ))
    }

    /// The candidate of a switchover away from `member` that is due, and until when it holds new clients.
    fn announced(&self, member: &MemberName) -> Option<(Option<MemberName>, Instant)> {
        let heard = self.view.announcement()?;
        let begins = heard.value.starts.map_or(heard.at, |starts| starts.max(heard.at));
        let until = begins + self.policy.switchover_hold;
        let concerns = heard.value.leader.as_ref().is_none_or(|leader| leader == member)
            && heard.value.candidate.as_ref() != Some(member);
        (concerns && begins <= self.now && self.now < until).then(|| (heard.value.candidate.clone(), until))
    }

    fn announcement_starts(&self) -> Option<Instant> {
        let starts = self.view.announcement()?.value.starts?;
        (self.now < starts).then_some(starts)
    }

    fn next_report_to_age(&self) -> Option<Instant> {
        self.view
            .members()
            .filter_map(|member| Some(self.view.answers(member)?.last.as_ref()?.at + self.policy.report_life))
            .filter(|end| self.now < *end)
            .min()
    }

    fn leader(&self, member: &MemberName) -> Result<Leader, String> {
        let current = self.current.filter(|current| current.member == *member);
        match (self.view.address(member), current) {
            (Ok(address), Some(current)) if current.address == address => Ok(current.clone()),
            (Ok(address), _) => Ok(Leader {
                member: member.clone(),
                address,
                timeline: None,
            }),
            // Its pod or row is gone while the lock stands: nothing says that the server is.
            (Err(_), Some(current)) => Ok(current.clone()),
            (Err(why), None) => Err(why),
        }
    }

    fn is_current(&self, leader: &Leader) -> bool {
        self.current == Some(leader)
    }
}

#[cfg(test)]
mod attack;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod rules;
