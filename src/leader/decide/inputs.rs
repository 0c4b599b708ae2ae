//! The facts that the rules read, and the queries that several rules share.

use std::time::{Duration, Instant};

use super::Policy;
use super::decision::{Decision, decision};
use super::member_state::MemberState;
use crate::leader::reason::{NoLock, Reason};
use crate::leader::view::{LockView, View};
use crate::leader::{MemberName, RoutingState, Server, UnknownAddress};

/// Length of the period before the lock's expiry in which new clients wait, because the expiry could interrupt a login
/// that begins in this period. A lock that is renewed in time never comes this close to its expiry.
const EXPIRY_MARGIN: Duration = Duration::from_millis(500);

/// The arguments of one decision, and the source that determines the leader.
pub(super) struct Inputs<'a> {
    pub(super) view: &'a View,
    /// The leader whose sessions are kept now.
    pub(super) current: Option<&'a Server>,
    pub(super) now: Instant,
    pub(super) policy: &'a Policy,
    source: Source<'a>,
}

/// The source that determines the leader.
enum Source<'a> {
    /// At least one leader object has not been read yet, and no lock is known.
    Unread,
    /// The lock in the leader object, whose store answers.
    Lock(&'a LockView),
    /// The members' answers, and the reason why no lock is watched.
    Reports(NoLock),
}

impl<'a> Inputs<'a> {
    pub(super) fn new(view: &'a View, current: Option<&'a Server>, now: Instant, policy: &'a Policy) -> Self {
        let source = match (view.lock(), view.api_unreachable()) {
            (Some(lock), None) => Source::Lock(lock),
            (None, _) if view.awaits_a_leader_object() => Source::Unread,
            (_, Some(cause)) => Source::Reports(NoLock::ApiUnreachable {
                store: view.lock_kind().store(),
                cause: cause.to_owned(),
            }),
            (None, None) if view.api_answered() => Source::Reports(NoLock::NoObject { kind: view.lock_kind() }),
            (None, None) => Source::Reports(NoLock::RestOnly),
        };
        Self {
            view,
            current,
            now,
            policy,
            source,
        }
    }

    /// Rule 1: a leader object has not been read yet.
    pub(super) fn lock_unread(&self) -> Option<Decision> {
        let current = || self.current.cloned();
        let kind = self.view.lock_kind();
        matches!(self.source, Source::Unread)
            .then(|| decision(RoutingState::Hold(current()), Reason::LockUnread { kind }))
    }

    /// Returns the lock, if it is watched.
    pub(super) fn lock(&self) -> Option<&'a LockView> {
        match self.source {
            Source::Lock(lock) => Some(lock),
            Source::Unread | Source::Reports(_) => None,
        }
    }

    /// Returns the reason why no lock is watched; `None` if a lock is watched or has yet to be read.
    pub(super) fn no_lock(&self) -> Option<&NoLock> {
        match &self.source {
            Source::Reports(no_lock) => Some(no_lock),
            Source::Unread | Source::Lock(_) => None,
        }
    }

    /// Returns the watched lock and its holder, if the holder's address is known.
    pub(super) fn holder(&self) -> Option<(&'a LockView, Server)> {
        let lock = self.lock()?;
        let holder = self.at_its_address(lock.lock.holder.as_ref()?).ok()?;
        Some((lock, holder))
    }

    /// Returns the same as [`holder`](Self::holder), unless the lock has expired.
    pub(super) fn holder_of_fresh_lock(&self) -> Option<(&'a LockView, Server)> {
        self.holder().filter(|(lock, _)| self.now < lock.lock_expiry())
    }

    /// Returns the same as [`holder`](Self::holder), if the lock has expired.
    pub(super) fn holder_of_expired_lock(&self) -> Option<(&'a LockView, Server)> {
        self.holder().filter(|(lock, _)| lock.lock_expiry() <= self.now)
    }

    /// Returns the member's server, or the reason why its address is unknown.
    pub(super) fn at_its_address(&self, member: &MemberName) -> Result<Server, UnknownAddress> {
        let current = self.current.filter(|current| current.member == *member);
        match (self.view.address(member), current) {
            (Ok(address), Some(current)) if current.address == address => Ok(current.clone()),
            (Ok(address), _) => Ok(Server {
                member: member.clone(),
                address,
                timeline: None,
            }),
            // A missing pod, key or row is not evidence that the current leader's server is gone.
            (Err(_), Some(current)) => Ok(current.clone()),
            (Err(cause), None) => Err(cause),
        }
    }

    pub(super) fn is_current(&self, leader: &Server) -> bool {
        self.current == Some(leader)
    }

    /// Returns a hold that keeps the sessions of `leader` if it is the current leader.
    pub(super) fn hold_keeping(&self, leader: Server) -> RoutingState {
        RoutingState::Hold(self.is_current(&leader).then_some(leader))
    }

    /// Returns the time at which the margin before the lock's expiry begins.
    pub(super) fn margin_start(lock: &LockView) -> Instant {
        lock.lock_expiry() - EXPIRY_MARGIN
    }

    /// Returns a hold of at most `switchover_hold`, if a switchover away from `leader` is due.
    pub(super) fn hold_for_switchover(&self, leader: Server) -> Option<Decision> {
        let heard = self.view.announcement()?;
        let begins = heard.value.starts.map_or(heard.at, |starts| starts.max(heard.at));
        let until = begins + self.policy.switchover_hold;
        let concerns = heard.value.leader.as_ref().is_none_or(|from| *from == leader.member)
            && heard.value.candidate.as_ref() != Some(&leader.member);
        (concerns && begins <= self.now && self.now < until).then(|| {
            let reason = Reason::SwitchoverAnnounced {
                from: leader.member.clone(),
                to: heard.value.candidate.clone(),
            };
            decision(RoutingState::Hold(Some(leader)), reason).recheck_by(until)
        })
    }

    /// Returns a hold while the members may postpone the race for an expired lock (`primary_race_backoff`). They do so
    /// as long as the leader's WAL advances. A fence would stop the WAL, and so cause the failover that Patroni is
    /// avoiding. Returns `None` for a leader that says that it is not a primary, because it writes nothing.
    pub(super) fn hold_before_the_race(&self, leader: &Server, lock_expiry: Instant) -> Option<Decision> {
        let backoff = self.view.race_backoff();
        let end = lock_expiry + backoff;
        let is_no_primary = matches!(
            self.member_state(&leader.member, None),
            MemberState::NotWritable { .. } | MemberState::StandbyLeader
        );
        (self.now < end && !is_no_primary).then(|| {
            let member = leader.member.clone();
            decision(
                RoutingState::Hold(Some(leader.clone())),
                Reason::RaceBackoff { member, backoff },
            )
            .recheck_by(end)
        })
    }

    /// Returns the next instant at which the passage of time may make another rule apply. Rules add further instants
    /// with `recheck_by`.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_lock = self.holder_of_fresh_lock();
        let of_lock = of_lock.map(|(lock, _)| [Self::margin_start(lock), lock.lock_expiry()]);
        let of_reports = self.no_lock().and_then(|_| self.next_report_to_age());
        let switchover = self.view.announcement().and_then(|heard| heard.value.starts);
        let reopening = self.named_again_from().map(|(_, from)| from);
        let deadlines = of_lock
            .into_iter()
            .flatten()
            .chain(of_reports)
            .chain(switchover)
            .chain(reopening);
        deadlines.filter(|at| self.now < *at).min()
    }

    fn next_report_to_age(&self) -> Option<Instant> {
        let members = self.view.members();
        let ends =
            members.filter_map(|member| Some(self.view.answers(member)?.last.as_ref()?.at + self.policy.report_life));
        ends.filter(|end| self.now < *end).min()
    }
}
