//! Evaluates the members' answers while no lock is watched.

use std::cmp::Reverse;
use std::time::Instant;

use super::inputs::Inputs;
use crate::leader::MemberName;
use crate::leader::observation::{Report, Role};
use crate::leader::reason::NoLock;

impl Inputs<'_> {
    /// Returns the members that answered their newest request, less than `report_life` ago, with each answer and its
    /// time.
    pub(super) fn answering(&self) -> Vec<(&MemberName, &Report, Instant)> {
        // An answer from before the lock moved does not count any more.
        let since = self.view.lock().and_then(|lock| lock.held_since);
        self.view
            .members()
            .filter_map(|member| {
                let answers = self.view.answers(member)?;
                let last = answers.last.as_ref()?;
                let counts = answers.unreachable.is_none()
                    && self.now < last.at + self.policy.report_life
                    && since.is_none_or(|since| since <= last.at);
                counts.then_some((member, &last.value, last.at))
            })
            .collect()
    }

    /// Returns the answering members that say that they are a running primary: a lock holder first, then the highest
    /// timeline.
    ///
    /// A member that lacks the lock counts only if it is the current leader. Any other such member was promoted without
    /// Patroni, or is a former primary that was not demoted.
    pub(super) fn primaries(&self) -> Vec<(&MemberName, &Report, Instant)> {
        let mut found = self.answering();
        found.retain(|(member, report, _)| {
            let is_current = self.current.is_some_and(|current| current.member == **member);
            report.is_writable() && (is_current || !self.lacks_the_lock(report))
        });
        found.sort_by_key(|(_, report, _)| Reverse((report.holds_lock, report.timeline)));
        found
    }

    /// Returns true if a member says that it lacks the lock (status 503), unless that is permitted. In pause and in
    /// failsafe mode, a leader may lack the lock as long as no other member says that it holds the lock.
    pub(super) fn lacks_the_lock(&self, report: &Report) -> bool {
        let is_excused = report.paused || report.failsafe_active;
        let another_holds_it = || self.answering().iter().any(|(_, other, _)| other.holds_lock);
        !report.holds_lock && (!is_excused || another_holds_it())
    }

    /// Returns the member that says that it leads a standby cluster.
    pub(super) fn standby_leader(&self) -> Option<MemberName> {
        let answering = self.answering();
        let mut leaders = answering
            .iter()
            .filter(|(_, report, _)| report.role == Role::StandbyLeader);
        leaders.next().map(|(member, ..)| (*member).clone())
    }

    /// Returns true if Patroni is paused and a source that reports the pause still answers. Without such a source, the
    /// pause could end unnoticed.
    pub(super) fn is_known_to_be_paused(&self, no_lock: &NoLock) -> bool {
        let is_confirmed = match no_lock {
            NoLock::ApiUnreachable { .. } => self.answering().iter().any(|(_, report, _)| report.paused),
            NoLock::RestOnly | NoLock::NoObject { .. } => self.view.cluster_unreachable().is_none(),
        };
        is_confirmed && self.view.is_paused()
    }
}
