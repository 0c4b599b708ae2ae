//! Who leads where there is no lock to go by: what members say of themselves decides, and the last good evidence keeps the leader for a lease.

use std::time::Instant;

use super::decision::{Decision, decision};
use super::{Case, Standing};
use crate::leader::observation::{Report, Role};
use crate::leader::reason::{NoLock, Reason};
use crate::leader::{Leader, MemberName, RoutingState};

/// What stands in the way of a primary without the lock.
const LACKS_THE_LOCK: &str = "it says that it does not hold the lock";

impl Case<'_> {
    /// No lock to go by: what members say of themselves decides.
    pub(super) fn by_reports(&self, no_lock: &NoLock) -> Decision {
        if let Some(unclear) = self.unclear(no_lock) {
            return unclear;
        }
        let primaries = self.primaries();
        let ahead = |report: &Report| (report.holds_lock, report.timeline);
        match primaries.as_slice() {
            [] => self.no_primary(no_lock),
            [(member, report, heard)] => self.primary(
                member,
                report,
                Reason::OnlyPrimary((*member).clone(), no_lock.clone()),
                *heard,
            ),
            [(one, first, heard), (_, second, _), ..] if ahead(first) > ahead(second) => self.primary(
                one,
                first,
                Reason::NewestPrimary((*one).clone(), no_lock.clone()),
                *heard,
            ),
            several => {
                let names = several.iter().map(|(member, ..)| (*member).clone()).collect();
                decision(RoutingState::Fence, Reason::SplitBrain(names))
            }
        }
        .recheck_at(self.next_report_to_age())
    }

    fn primary(&self, member: &MemberName, report: &Report, reason: Reason, heard: Instant) -> Decision {
        if let Some(what) = self.lower_timeline(member, report.timeline, report.system.as_deref()) {
            return decision(RoutingState::Hold(None), Reason::NotWritable(member.clone(), what));
        }
        let leader = match self.leader(member) {
            Ok(leader) => Leader {
                timeline: report.timeline,
                ..leader
            },
            Err(why) => return decision(RoutingState::Hold(None), Reason::NoAddress(member.clone(), why)),
        };
        if self.lacks_the_lock(report) {
            let reason = Reason::NotWritable(member.clone(), LACKS_THE_LOCK.to_owned());
            return decision(RoutingState::Hold(Some(leader)), reason);
        }
        self.unless_announced(leader, reason)
            .recheck_by(heard + self.policy.report_life)
            .recheck_at(self.announcement_starts())
    }

    /// No member says that it is primary: the leader is kept until a lease after the last good evidence, whatever its source.
    fn no_primary(&self, no_lock: &NoLock) -> Decision {
        let Some(current) = self.current else {
            if let Some(reason) = self.only_another_answers() {
                return decision(RoutingState::Hold(None), reason);
            }
            if let Some(member) = self.standby_leader() {
                return decision(RoutingState::Hold(None), Reason::StandbyCluster(member));
            }
            return match self.view.rest_answered() {
                true => decision(RoutingState::Hold(None), Reason::NoPrimary(no_lock.clone())),
                false => {
                    let why = self
                        .view
                        .cluster_silence()
                        .unwrap_or("no member of the cluster has answered yet");
                    decision(
                        RoutingState::Hold(None),
                        Reason::NobodyAnswers(no_lock.clone(), why.to_owned()),
                    )
                }
            };
        };
        let member = current.member.clone();
        // Without any evidence left the lock has expired.
        let evidence = self.view.last_evidence(Some(&member));
        let lock_expiry = evidence.map_or(self.now, |evidence| evidence + self.view.ttl());
        // In pause nobody else is promoted by itself, though by an operator's hand: silence alone proves nothing against this one.
        let excused = self.is_known_to_be_paused(no_lock) && !self.view.is_succeeded(&member);
        let end = (!excused).then_some(lock_expiry);
        let last = self.view.answers(&member).and_then(|answers| answers.last.as_ref());
        let lacks_the_lock = last.is_some_and(|last| self.lacks_the_lock(&last.value));
        let standing = self.standing(&member, None);
        let is_well = !lacks_the_lock && !matches!(standing, Standing::Not(_) | Standing::StandbyLeader);
        let named_until = self.view.named_until(&member, self.now, self.policy.report_life);
        let somebody_else_leads = self.view.is_succeeded(&member)
            || self
                .answering()
                .iter()
                .any(|(other, report, _)| **other != member && report.holds_lock);
        let put_off = (!lacks_the_lock && !somebody_else_leads)
            .then(|| self.race_put_off(current, lock_expiry))
            .flatten();
        match standing {
            // The members read this from the DCS, where a leader that does not renew stands for its ttl and no longer.
            _ if let Some(until) = named_until.filter(|_| is_well && end.is_some_and(|end| end <= self.now)) => {
                decision(
                    RoutingState::Route(current.clone()),
                    Reason::NamedByMembers(member, no_lock.clone()),
                )
                .recheck_by(until)
            }
            _ if let Some(decision) = put_off.filter(|_| end.is_some_and(|end| end <= self.now)) => decision,
            // Whatever it said last: by now another may be promoted.
            _ if end.is_some_and(|end| end <= self.now) => {
                decision(RoutingState::Fence, Reason::SilentTooLong(no_lock.clone()))
            }
            Standing::Not(what) => decision(
                RoutingState::Hold(Some(current.clone())),
                Reason::NotWritable(member, what),
            )
            .recheck_at(end),
            Standing::StandbyLeader => decision(RoutingState::Hold(None), Reason::StandbyCluster(member)),
            _ if lacks_the_lock => {
                let reason = Reason::NotWritable(member, LACKS_THE_LOCK.to_owned());
                decision(RoutingState::Hold(Some(current.clone())), reason).recheck_at(end)
            }
            _ if end.is_none() => decision(
                RoutingState::Route(current.clone()),
                Reason::SilentInPause(member, no_lock.clone()),
            ),
            _ => decision(
                RoutingState::Route(current.clone()),
                Reason::KeptInSilence(member, no_lock.clone()),
            )
            .recheck_at(end),
        }
    }

    /// It says that it leads a standby cluster.
    fn standby_leader(&self) -> Option<MemberName> {
        let answering = self.answering();
        let leads = |report: &Report| report.role == Role::StandbyLeader;
        answering
            .iter()
            .find(|(_, report, _)| leads(report))
            .map(|(member, ..)| (*member).clone())
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
    pub(super) fn answering(&self) -> Vec<(&MemberName, &Report, Instant)> {
        // What was said before the lock moved was said of another epoch.
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
    fn primaries(&self) -> Vec<(&MemberName, &Report, Instant)> {
        let mut found: Vec<_> = self
            .answering()
            .into_iter()
            .filter(|(member, report, _)| {
                let is_current = self.current.is_some_and(|current| current.member == **member);
                report.is_writable() && (is_current || !self.lacks_the_lock(report))
            })
            .collect();
        found.sort_by_key(|(_, report, _)| std::cmp::Reverse((report.holds_lock, report.timeline)));
        found
    }
}
