//! Rules 13 to 23: no lock is watched. The members' answers decide. The leader is kept for a ttl after the last
//! evidence that it leads.

use std::time::Instant;

use super::decision::{Decision, decision};
use super::inputs::Inputs;
use super::member_state::MemberState;
use crate::leader::observation::Report;
use crate::leader::reason::{NoLock, Reason};
use crate::leader::{RoutingState, Server};

/// The cause for a primary that says that it does not hold the lock.
const LACKS_THE_LOCK: &str = "it says that it does not hold the lock";

impl Inputs<'_> {
    /// Rule 13: the cluster to follow is unknown.
    pub(super) fn cluster_unknown(&self) -> Option<Decision> {
        let reason = self.unclear(self.no_lock()?)?;
        Some(decision(RoutingState::Hold(None), reason))
    }

    /// Rule 14: several members say that they are primary, and neither the lock nor the timeline distinguishes them.
    /// All sessions end, because any of these members may accept writes.
    pub(super) fn split_brain(&self) -> Option<Decision> {
        self.no_lock()?;
        let rank = |report: &Report| (report.holds_lock, report.timeline);
        match self.primaries().as_slice() {
            primaries @ [(_, first, _), (_, second, _), ..] if rank(first) == rank(second) => {
                let members = primaries.iter().map(|(member, ..)| (*member).clone()).collect();
                Some(decision(RoutingState::Fence, Reason::SplitBrain { members }))
            }
            _ => None,
        }
    }

    /// Rule 15: a switchover away from the primary is announced, and rule 16 would route to it.
    pub(super) fn switchover_of_the_primary(&self) -> Option<Decision> {
        match self.reported_primary()?.state {
            RoutingState::Route(leader) => self.hold_for_switchover(leader),
            RoutingState::Hold(_) | RoutingState::Fence => None,
        }
    }

    /// Rule 16: a member says that it is a running primary. If several do, the member that holds the lock takes
    /// precedence, then the member on the highest timeline. Clients wait if its address is unknown, if it is on a lower
    /// timeline than a leader before it, or if it says that it does not hold the lock; only in the last case, its
    /// sessions stay.
    pub(super) fn reported_primary(&self) -> Option<Decision> {
        let no_lock = self.no_lock()?.clone();
        let primaries = self.primaries();
        let (member, report, heard) = *primaries.first()?;
        let member = member.clone();
        if let Some(cause) = self.lower_timeline(&member, report.timeline, report.system.as_deref()) {
            return Some(decision(
                RoutingState::Hold(None),
                Reason::NotWritable { member, cause },
            ));
        }
        let leader = match self.at_its_address(&member) {
            Ok(leader) => Server {
                timeline: report.timeline,
                ..leader
            },
            Err(cause) => return Some(decision(RoutingState::Hold(None), Reason::NoAddress { member, cause })),
        };
        if self.lacks_the_lock(report) {
            return Some(hold_without_lock(leader));
        }
        let reason = match primaries.len() {
            1 => Reason::OnlyPrimary { member, no_lock },
            _ => Reason::NewestPrimary { member, no_lock },
        };
        Some(decision(RoutingState::Route(leader), reason).recheck_by(heard + self.policy.report_life))
    }

    /// Rule 17: the ttl is over, and a majority names X. The members read the leader from the DCS, where the key of a
    /// leader that does not renew it expires after the ttl.
    pub(super) fn named_by_majority(&self) -> Option<Decision> {
        let (current, no_lock) = self.unheard_leader()?;
        let until = self
            .view
            .named_until(&current.member, self.now, self.policy.report_life)?;
        let state = self.member_state(&current.member, None);
        let speaks_against_itself = self.says_it_lacks_the_lock(current)
            || matches!(state, MemberState::NotWritable { .. } | MemberState::StandbyLeader);
        (!speaks_against_itself).then(|| {
            let (member, no_lock) = (current.member.clone(), no_lock.clone());
            let reason = Reason::NamedByMembers { member, no_lock };
            decision(RoutingState::Route(current.clone()), reason).recheck_by(until)
        })
    }

    /// Rule 18: the ttl is over, and the members may postpone the race for the lock.
    pub(super) fn unheard_before_the_race(&self) -> Option<Decision> {
        let (current, _) = self.unheard_leader()?;
        let answering = self.answering();
        let another_holds_it = answering
            .iter()
            .any(|(other, report, _)| **other != current.member && report.holds_lock);
        let another_leads = self.view.is_succeeded(&current.member) || another_holds_it;
        match another_leads || self.says_it_lacks_the_lock(current) {
            true => None,
            false => self.hold_before_the_race(current, self.last_expiry(current)),
        }
    }

    /// Rule 19: the ttl is over. There has been no evidence for a ttl that X leads, so another member may have been
    /// promoted by now.
    pub(super) fn unheard_for_ttl(&self) -> Option<Decision> {
        let (_, no_lock) = self.unheard_leader()?;
        let no_lock = no_lock.clone();
        Some(decision(RoutingState::Fence, Reason::SilentTooLong { no_lock }))
    }

    /// Rule 20: X says that it does not accept writes, or that it does not hold the lock. X's sessions stay, and
    /// PostgreSQL ends them when it stops. If X leads a standby cluster, its sessions end.
    pub(super) fn leader_not_writable(&self) -> Option<Decision> {
        self.no_lock()?;
        let current = self.current?;
        let member = current.member.clone();
        let decided = match self.member_state(&member, None) {
            MemberState::NotWritable { cause } => decision(
                RoutingState::Hold(Some(current.clone())),
                Reason::NotWritable { member, cause },
            ),
            MemberState::StandbyLeader => {
                return Some(decision(RoutingState::Hold(None), Reason::StandbyCluster { member }));
            }
            _ if self.says_it_lacks_the_lock(current) => hold_without_lock(current.clone()),
            MemberState::Writable { .. } | MemberState::WritableByStatus { .. } | MemberState::Unreachable { .. } => {
                return None;
            }
        };
        Some(decided.recheck_at(self.leader_expiry()))
    }

    /// Rule 21: X does not answer. X stays the leader until a ttl after the last evidence; in pause, for longer.
    pub(super) fn leader_unreachable(&self) -> Option<Decision> {
        let no_lock = self.no_lock()?.clone();
        let current = self.current?;
        let member = current.member.clone();
        let route = |reason| decision(RoutingState::Route(current.clone()), reason);
        Some(match self.leader_expiry() {
            Some(expiry) => route(Reason::KeptInSilence { member, no_lock }).recheck_by(expiry),
            None => route(Reason::SilentInPause { member, no_lock }),
        })
    }

    /// Rule 22: X was the leader and does not answer, but every other member names X again.
    pub(super) fn named_again(&self) -> Option<Decision> {
        let no_lock = self.no_lock()?.clone();
        let (leader, from) = self.named_again_from()?;
        let until = self
            .view
            .named_until(&leader.member, self.now, self.policy.report_life)?;
        (from <= self.now).then(|| {
            let member = leader.member.clone();
            decision(RoutingState::Route(leader), Reason::NamedAgain { member, no_lock }).recheck_by(until)
        })
    }

    /// Returns the leader that every other member names again, and the time from which clients may go to it.
    ///
    /// Clients may go to it immediately if there is no gap between its own last answer and the other members' answers:
    /// the evidence is then as good as before the fence. After a gap, it may have demoted itself in the meantime and
    /// now hold the lock in recovery. Once the others have named it for a whole ttl, its Patroni loop has run again,
    /// and has written a new timeline if it was promoted again.
    pub(super) fn named_again_from(&self) -> Option<(Server, Instant)> {
        self.no_lock().filter(|_| self.current.is_none())?;
        let (member, last) = self.view.silent_leader()?;
        let timeline = last.value.timeline;
        let life = self.policy.report_life;
        let since = self.view.named_by_all_since(member, timeline, self.now, life)?;
        let speaks_against_itself = matches!(
            self.member_state(member, None),
            MemberState::NotWritable { .. } | MemberState::StandbyLeader
        );
        let leader = self.at_its_address(member).ok().filter(|_| !speaks_against_itself)?;
        let leader = Server { timeline, ..leader };
        let is_unbroken = since <= self.last_expiry(&leader);
        let from = if is_unbroken { since } else { since + self.view.ttl() };
        Some((leader, from))
    }

    /// Rule 23: there is no leader.
    pub(super) fn no_leader(&self) -> Decision {
        let no_lock = self.no_lock().unwrap_or(&NoLock::RestOnly).clone();
        let unanswered = || {
            let cause = self.view.cluster_unreachable();
            let cause = cause.unwrap_or("no member of the cluster has answered yet").to_owned();
            Reason::NobodyAnswers {
                no_lock: no_lock.clone(),
                cause,
            }
        };
        let reason = match (self.only_another_answers(), self.standby_leader()) {
            (Some(another), _) => another,
            (None, Some(member)) => Reason::StandbyCluster { member },
            (None, None) if self.view.rest_answered() => Reason::NoPrimary {
                no_lock: no_lock.clone(),
            },
            (None, None) => unanswered(),
        };
        decision(RoutingState::Hold(None), reason)
    }

    /// Returns the current leader, if no lock is watched and the leader's ttl is over.
    fn unheard_leader(&self) -> Option<(&Server, &NoLock)> {
        let (current, no_lock) = (self.current?, self.no_lock()?);
        let is_over = self.leader_expiry().is_some_and(|expiry| expiry <= self.now);
        is_over.then_some((current, no_lock))
    }

    /// Returns the end of the leader's ttl; `None` while Patroni is known to be paused and `/cluster` has not named
    /// another leader since the leader's last answer. Patroni then promotes no member automatically, so silence of the
    /// leader is not evidence of a new leader.
    fn leader_expiry(&self) -> Option<Instant> {
        let current = self.current?;
        let is_excused = self.is_known_to_be_paused(self.no_lock()?) && !self.view.is_succeeded(&current.member);
        (!is_excused).then(|| self.last_expiry(current))
    }

    /// Returns the end of the ttl after the last evidence that a member leads. Without any evidence, the ttl is over.
    fn last_expiry(&self, leader: &Server) -> Instant {
        let evidence = self.view.last_evidence(Some(&leader.member));
        evidence.map_or(self.now, |evidence| evidence + self.view.ttl())
    }

    fn says_it_lacks_the_lock(&self, leader: &Server) -> bool {
        let last = self
            .view
            .answers(&leader.member)
            .and_then(|answers| answers.last.as_ref());
        last.is_some_and(|last| self.lacks_the_lock(&last.value))
    }
}

fn hold_without_lock(leader: Server) -> Decision {
    let reason = Reason::NotWritable {
        member: leader.member.clone(),
        cause: LACKS_THE_LOCK.to_owned(),
    };
    decision(RoutingState::Hold(Some(leader)), reason)
}
