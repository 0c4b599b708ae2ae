//! Who is leader now, and why: one function, pure and total. No I/O, no clock.
//!
//! The lock, while it is fresh, says *who*; the body of that member's REST answer says *whether it is writable yet*. Without the lock (no Kubernetes, or
//! its API is silent) the members' REST answers decide alone.

use std::time::{Duration, Instant};

use crate::leader::observation::{OperatorHold, Pod, Report, Role};
use crate::leader::reason::{NoLock, Reason};
use crate::leader::view::{LockView, View};
use crate::leader::{Course, Leader};

/// So long before a lease runs out nobody new is sent to its leader: who logs in now would be cut in the middle of it. A lease that is renewed in time never
/// gets there.
const LAST_CALL: Duration = Duration::from_millis(500);

/// What stands in the way of a primary without the lock.
const LACKS_THE_LOCK: &str = "it says that it does not hold the lock";

/// What the operator may choose.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long an announced switchover holds new clients while the leader still runs.
    pub switchover_hold: Duration,
    /// Without a lock to go by, how long an answer of a member's REST API stands.
    pub report_life: Duration,
}

/// What to do, why, and when time alone may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub course: Course,
    /// Why; as it would be without an operator's hold.
    pub reason: Reason,
    /// The operator's hold, while there is one.
    pub held: Option<Held>,
    /// When to decide again although nothing new was heard; `None` where time changes nothing.
    pub recheck_at: Option<Instant>,
}

/// What an operator's hold makes of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The hold.
    pub hold: OperatorHold,
    /// Nothing else stands in the way: at its end clients go to the leader.
    pub alone: bool,
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
pub fn decide(view: &View, current: Option<&Leader>, now: Instant, policy: &Policy) -> Verdict {
    let case = Case {
        view,
        current,
        now,
        policy,
    };
    let verdict = match (view.lock(), view.api_silence()) {
        (Some(lock), None) => case.by_lock(lock),
        (_, Some(why)) => case.by_reports(&NoLock::ApiSilent(why.to_owned())),
        (None, None) if view.api_answered() => case.by_reports(&NoLock::NoObject),
        (None, None) => case.by_reports(&NoLock::RestOnly),
    };
    case.held_by_operator(verdict)
}

struct Case<'a> {
    view: &'a View,
    current: Option<&'a Leader>,
    now: Instant,
    policy: &'a Policy,
}

impl Case<'_> {
    /// An operator's hold keeps new clients from a leader that they could go to, and changes nothing else: who leads, whose sessions live and what is fenced
    /// is decided as ever.
    fn held_by_operator(&self, verdict: Verdict) -> Verdict {
        let Some(hold) = self.view.operator_hold().filter(|hold| self.now < hold.ends) else {
            return verdict;
        };
        let (course, alone) = match verdict.course {
            Course::Route(leader) => (Course::Hold(Some(leader)), true),
            course => (course, false),
        };
        let held = Some(Held { hold: *hold, alone });
        Verdict {
            course,
            held,
            ..verdict
        }
        .recheck_by(hold.ends)
    }

    fn by_lock(&self, lock: &LockView) -> Verdict {
        let Some(holder) = lock.lock.holder.as_deref() else {
            return self.released();
        };
        if self.view.is_standby_cluster() {
            return verdict(Course::Hold(None), Reason::StandbyCluster(holder.to_owned()));
        }
        let leader = match self.leader(holder) {
            Ok(leader) => leader,
            Err(why) => return verdict(Course::Hold(None), Reason::NoAddress(holder.to_owned(), why)),
        };
        if lock.lease_end() <= self.now {
            return self.expired(lock, leader);
        }
        let last_call = lock.lease_end() - LAST_CALL;
        if last_call <= self.now && !self.outlives_the_lease(lock, &leader.member) {
            let reason = Reason::LeaseEnding(leader.member.clone());
            let kept = self.is_current(&leader).then_some(leader);
            return verdict(Course::Hold(kept), reason).recheck_by(lock.lease_end());
        }
        self.held_by(leader, lock.held_since)
            .recheck_by(lock.lease_end())
            .recheck_at((self.now < last_call).then_some(last_call))
            .recheck_at(self.announcement_starts())
    }

    /// Whether the end of the lease will not end its time.
    fn outlives_the_lease(&self, lock: &LockView, member: &str) -> bool {
        let vouched = self.view.answers(member).and_then(|answers| answers.vouched);
        self.view.is_paused() || vouched.is_some_and(|vouched| lock.renewed < vouched)
    }

    /// The lock is fresh. A leader whose sessions live already needs no word of its REST API to go on: a hiccup changes nothing. Another one must have said
    /// that it is writable, since it holds the lock; until then the sessions to any other end.
    fn held_by(&self, leader: Leader, held_since: Option<Instant>) -> Verdict {
        let member = leader.member.clone();
        let (timeline, reason) = match self.standing(&member, held_since) {
            Standing::Writable(timeline) => (timeline, Reason::LockAndReport(member.clone())),
            Standing::WritableByPod(timeline, why) => (timeline, Reason::LockAndPodStatus(member.clone(), why)),
            Standing::Silent(why) if self.is_current(&leader) => {
                (leader.timeline, Reason::LockAlone(member.clone(), why))
            }
            Standing::Silent(why) => return verdict(Course::Hold(None), Reason::Unverified(member, why)),
            Standing::StandbyLeader => return verdict(Course::Hold(None), Reason::StandbyCluster(member)),
            Standing::Not(what) => {
                let kept = self.is_current(&leader).then_some(leader);
                return verdict(Course::Hold(kept), Reason::NotWritable(member, what));
            }
        };
        self.unless_announced(Leader { timeline, ..leader }, reason)
    }

    /// Routes, but for an announced switchover, which holds new clients for a while.
    fn unless_announced(&self, leader: Leader, reason: Reason) -> Verdict {
        match self.announced(&leader.member) {
            Some((candidate, until)) => {
                let reason = Reason::SwitchoverAnnounced(leader.member.clone(), candidate);
                verdict(Course::Hold(Some(leader)), reason).recheck_by(until)
            }
            None => verdict(Course::Route(leader), reason),
        }
    }

    fn released(&self) -> Verdict {
        let paused_primary = self.current.filter(|current| {
            let standing = self.standing(&current.member, None);
            self.view.is_paused() && matches!(standing, Standing::Writable(_) | Standing::WritableByPod(..))
        });
        match paused_primary {
            Some(current) => verdict(
                Course::Hold(Some(current.clone())),
                Reason::ReleasedInPause(current.member.clone()),
            ),
            None => verdict(Course::Hold(None), Reason::Released),
        }
    }

    fn expired(&self, lock: &LockView, leader: Leader) -> Verdict {
        let member = leader.member.clone();
        let answers = self.view.answers(&member);
        // Patroni drops the flag once it has renewed the lock: an answer that says so may overtake the watch.
        if let Some((last, vouched)) = answers.and_then(|answers| answers.last.as_ref().zip(answers.vouched))
            && (last.value.failsafe_active || last.value.holds_lock)
            && last.value.is_writable()
            && self.now < vouched + lock.lock.ttl
            && self.lower_timeline(&last.value).is_none()
        {
            let leader = Leader {
                timeline: last.value.timeline,
                ..leader
            };
            return verdict(Course::Route(leader), Reason::Failsafe(member)).recheck_by(vouched + lock.lock.ttl);
        }
        // In pause nobody is promoted by itself, so an old lock proves nothing against a leader that was verified before.
        if self.view.is_paused() && self.is_current(&leader) {
            return match self.standing(&member, None) {
                Standing::Not(what) => verdict(Course::Hold(Some(leader)), Reason::NotWritable(member, what)),
                Standing::StandbyLeader => verdict(Course::Hold(None), Reason::StandbyCluster(member)),
                Standing::Writable(_) | Standing::WritableByPod(..) | Standing::Silent(_) => {
                    verdict(Course::Route(leader), Reason::ExpiredInPause(member))
                }
            };
        }
        verdict(Course::Fence, Reason::LeaseExpired(member, lock.lock.ttl))
    }

    /// No lock to go by: what members say of themselves decides.
    fn by_reports(&self, no_lock: &NoLock) -> Verdict {
        let primaries = self.primaries();
        let ahead = |report: &Report| (report.holds_lock, report.timeline);
        match primaries.as_slice() {
            [] => self.no_primary(no_lock),
            [(member, report, heard)] => self.primary(
                member,
                report,
                Reason::OnlyPrimary((*member).into(), no_lock.clone()),
                *heard,
            ),
            [(one, first, heard), (_, second, _), ..] if ahead(first) > ahead(second) => self.primary(
                one,
                first,
                Reason::NewestPrimary((*one).into(), no_lock.clone()),
                *heard,
            ),
            several => {
                let names = several.iter().map(|(member, ..)| (*member).to_owned()).collect();
                verdict(Course::Fence, Reason::SplitBrain(names))
            }
        }
        .recheck_at(self.next_report_to_age())
    }

    fn primary(&self, member: &str, report: &Report, reason: Reason, heard: Instant) -> Verdict {
        if let Some(what) = self.lower_timeline(report) {
            return verdict(Course::Hold(None), Reason::NotWritable(member.to_owned(), what));
        }
        let leader = match self.leader(member) {
            Ok(leader) => Leader {
                timeline: report.timeline,
                ..leader
            },
            Err(why) => return verdict(Course::Hold(None), Reason::NoAddress(member.to_owned(), why)),
        };
        if self.lacks_the_lock(report) {
            let reason = Reason::NotWritable(member.to_owned(), LACKS_THE_LOCK.to_owned());
            return verdict(Course::Hold(Some(leader)), reason);
        }
        self.unless_announced(leader, reason)
            .recheck_by(heard + self.policy.report_life)
            .recheck_at(self.announcement_starts())
    }

    /// No member says that it is primary: the leader is kept until a lease after the last good evidence, whatever its source.
    fn no_primary(&self, no_lock: &NoLock) -> Verdict {
        let Some(current) = self.current else {
            return match self.view.rest_answered() {
                true => verdict(Course::Hold(None), Reason::NoPrimary(no_lock.clone())),
                false => {
                    let why = self
                        .view
                        .cluster_silence()
                        .unwrap_or("no member of the cluster has answered yet");
                    verdict(
                        Course::Hold(None),
                        Reason::NobodyAnswers(no_lock.clone(), why.to_owned()),
                    )
                }
            };
        };
        let member = current.member.clone();
        // Without any evidence left the lease is over.
        let evidence = self.view.last_evidence(Some(&member));
        let lease_end = evidence.map_or(self.now, |evidence| evidence + self.view.ttl());
        // In pause nobody else is promoted by itself, though by an operator's hand: silence alone proves nothing against this one.
        let excused = self.is_known_to_be_paused(no_lock) && !self.view.is_succeeded(&member);
        let end = (!excused).then_some(lease_end);
        let last = self.view.answers(&member).and_then(|answers| answers.last.as_ref());
        let lacks_the_lock = last.is_some_and(|last| self.lacks_the_lock(&last.value));
        match self.standing(&member, None) {
            // Whatever it said last: by now another may be promoted.
            _ if end.is_some_and(|end| end <= self.now) => {
                verdict(Course::Fence, Reason::SilentTooLong(no_lock.clone()))
            }
            Standing::Not(what) => {
                verdict(Course::Hold(Some(current.clone())), Reason::NotWritable(member, what)).recheck_at(end)
            }
            Standing::StandbyLeader => verdict(Course::Hold(None), Reason::StandbyCluster(member)),
            _ if lacks_the_lock => {
                let reason = Reason::NotWritable(member, LACKS_THE_LOCK.to_owned());
                verdict(Course::Hold(Some(current.clone())), reason).recheck_at(end)
            }
            _ if end.is_none() => verdict(
                Course::Route(current.clone()),
                Reason::SilentInPause(member, no_lock.clone()),
            ),
            _ => verdict(
                Course::Route(current.clone()),
                Reason::KeptInSilence(member, no_lock.clone()),
            )
            .recheck_at(end),
        }
    }

    /// Paused, and whoever tells of it is still heard: a pause may end unseen.
    fn is_known_to_be_paused(&self, no_lock: &NoLock) -> bool {
        let told = match no_lock {
            NoLock::ApiSilent(_) => self.answering().iter().any(|(_, report, _)| report.paused),
            NoLock::RestOnly | NoLock::NoObject => self.view.cluster_silence().is_none(),
        };
        told && self.view.is_paused()
    }

    /// Members whose newest request was answered, lately, and what they said when.
    fn answering(&self) -> Vec<(&str, &Report, Instant)> {
        // What was said before the lock moved was said of another reign.
        let since = self.view.lock().and_then(|lock| lock.held_since);
        self.view
            .members()
            .filter_map(|member| {
                let answers = self.view.answers(member)?;
                let last = answers.last.as_ref()?;
                let stands = answers.silent.is_none()
                    && self.now < last.at + self.policy.report_life
                    && since.is_none_or(|since| since <= last.at);
                stands.then_some((member, &last.value, last.at))
            })
            .collect()
    }

    /// It says so (status 503), and not for good reason: in pause and in failsafe mode a leader may lack the lock, unless somebody says that it holds it.
    fn lacks_the_lock(&self, report: &Report) -> bool {
        let excused = || report.paused || report.failsafe_active;
        let somebody_holds_it = || self.answering().iter().any(|(_, other, _)| other.holds_lock);
        !report.holds_lock && (!excused() || somebody_holds_it())
    }

    /// Those of them that say primary and running; those ahead first.
    ///
    /// Who lacks the lock counts only if it is the current leader, whose sessions stay; anybody else was promoted behind Patroni's back, or left behind
    /// as a primary.
    fn primaries(&self) -> Vec<(&str, &Report, Instant)> {
        let mut found: Vec<_> = self
            .answering()
            .into_iter()
            .filter(|(member, report, _)| {
                let is_current = self.current.is_some_and(|current| current.member == *member);
                report.is_writable() && (is_current || !self.lacks_the_lock(report))
            })
            .collect();
        found.sort_by_key(|(_, report, _)| std::cmp::Reverse((report.holds_lock, report.timeline)));
        found
    }

    /// How a member stands, by its REST API's newest answer, or, while that is silent, by its pod's `status` if that is newer (Patroni writes it about a second
    /// late). That it is writable counts only if it was said since `since`; that it is not, always.
    fn standing(&self, member: &str, since: Option<Instant>) -> Standing {
        let answers = self.view.answers(member);
        let last = answers.and_then(|answers| answers.last.as_ref());
        // A silence from before `since` is as old as an answer from before it.
        let asked_since =
            answers.is_some_and(|answers| since.is_none_or(|since| answers.asked.is_some_and(|asked| since <= asked)));
        let silence = answers
            .and_then(|answers| answers.silent.as_ref())
            .filter(|_| asked_since);
        let pod = self
            .view
            .pod(member)
            .filter(|pod| silence.is_some() && pod.value.role.is_some() && last.is_none_or(|last| last.at < pod.at));
        let why = || {
            silence
                .map_or("it has not answered yet", |silence| &silence.value)
                .to_owned()
        };
        let late = |at: Instant| since.is_some_and(|since| at < since);
        let (standing, too_old) = match (pod, last) {
            (Some(pod), _) => (self.standing_by_pod(&pod.value, why()), late(pod.at)),
            (None, Some(last)) => (self.standing_by_report(&last.value), late(last.at) || silence.is_some()),
            (None, None) => (Standing::Silent(why()), false),
        };
        match standing {
            Standing::Writable(_) | Standing::WritableByPod(..) if too_old => Standing::Silent(why()),
            standing => standing,
        }
    }

    fn standing_by_report(&self, report: &Report) -> Standing {
        match report.role {
            Role::StandbyLeader => Standing::StandbyLeader,
            Role::Other => Standing::Not(format!("it is still in recovery (state {:?})", report.state)),
            Role::Primary if !report.is_writable() => Standing::Not(format!("its state is {:?}", report.state)),
            Role::Primary => match self.lower_timeline(report) {
                Some(what) => Standing::Not(what),
                None => Standing::Writable(report.timeline),
            },
        }
    }

    fn standing_by_pod(&self, pod: &Pod, why: String) -> Standing {
        let role = pod.role.as_deref().map_or(Role::Other, Role::from_patroni);
        let running = pod.state.as_deref() == Some("running");
        let newer = self.view.newer_timeline_than(pod.timeline, None);
        match (role, newer) {
            (Role::StandbyLeader, _) => Standing::StandbyLeader,
            (Role::Primary, None) if running => Standing::WritableByPod(pod.timeline, why),
            _ => Standing::Not(format!(
                "its pod's status says so, and its REST API does not answer: {why}"
            )),
        }
    }

    fn lower_timeline(&self, report: &Report) -> Option<String> {
        let newest = self
            .view
            .newer_timeline_than(report.timeline, report.system.as_deref())?;
        let timeline = report.timeline.unwrap_or_default();
        Some(format!(
            "it is on timeline {timeline}, and a leader was seen on timeline {newest}"
        ))
    }

    /// The candidate of a switchover away from `member` that is due, and until when it holds new clients.
    fn announced(&self, member: &str) -> Option<(Option<String>, Instant)> {
        let heard = self.view.announcement()?;
        let begins = heard.value.starts.map_or(heard.at, |starts| starts.max(heard.at));
        let until = begins + self.policy.switchover_hold;
        let concerns = heard.value.leader.as_deref().is_none_or(|leader| leader == member)
            && heard.value.candidate.as_deref() != Some(member);
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

    fn leader(&self, member: &str) -> Result<Leader, String> {
        let current = self.current.filter(|current| current.member == member);
        match (self.view.address(member), current) {
            (Ok(address), Some(current)) if current.address == address => Ok(current.clone()),
            (Ok(address), _) => Ok(Leader {
                member: member.to_owned(),
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

fn verdict(course: Course, reason: Reason) -> Verdict {
    Verdict {
        course,
        reason,
        held: None,
        recheck_at: None,
    }
}

impl Verdict {
    /// The leader that new clients go to, or would if no operator held them.
    pub fn primary(&self) -> Option<&Leader> {
        match &self.held {
            Some(held) if held.alone => self.course.leader(),
            _ => self.course.open_to(),
        }
    }

    /// Why, as a sentence for people that tells of an operator's hold too.
    pub fn why(&self) -> String {
        match &self.held {
            None => self.reason.to_string(),
            Some(Held { hold, alone: true }) => format!("{hold}; {}", self.reason),
            Some(Held { hold, alone: false }) => format!("{}; also {hold}", self.reason),
        }
    }

    fn recheck_by(self, at: Instant) -> Self {
        self.recheck_at(Some(at))
    }

    fn recheck_at(self, at: Option<Instant>) -> Self {
        let recheck_at = match (self.recheck_at, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { recheck_at, ..self }
    }
}

#[cfg(test)]
mod attack;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod rules;
