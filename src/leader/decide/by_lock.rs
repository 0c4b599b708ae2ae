//! Rules 2 to 12: the lock is watched. X is the member that it names.

use super::decision::{Decision, decision};
use super::inputs::Inputs;
use super::member_state::MemberState;
use crate::leader::reason::Reason;
use crate::leader::view::LockView;
use crate::leader::{RoutingState, Server};

impl Inputs<'_> {
    /// Rule 2: the lock has no holder. Sessions end, because any member may acquire the lock. In pause, no member does
    /// so automatically, so the sessions of a leader that still says that it is a running primary stay.
    pub(super) fn lock_released(&self) -> Option<Decision> {
        let lock = self.lock()?;
        let paused_primary = || {
            self.current
                .filter(|current| self.view.is_paused() && self.member_state(&current.member, None).is_writable())
        };
        lock.lock.holder.is_none().then(|| match paused_primary() {
            Some(current) => decision(
                RoutingState::Hold(Some(current.clone())),
                Reason::ReleasedInPause {
                    member: current.member.clone(),
                },
            ),
            None => decision(RoutingState::Hold(None), Reason::Released),
        })
    }

    /// Rule 3: Patroni's configuration makes the cluster a standby cluster, so X is not a primary.
    pub(super) fn standby_cluster(&self) -> Option<Decision> {
        let member = self.lock()?.lock.holder.clone()?;
        let applies = self.view.is_standby_cluster();
        applies.then(|| decision(RoutingState::Hold(None), Reason::StandbyCluster { member }))
    }

    /// Rule 4: X has no known address.
    pub(super) fn no_address(&self) -> Option<Decision> {
        let member = self.lock()?.lock.holder.clone()?;
        let cause = self.at_its_address(&member).err()?;
        Some(decision(RoutingState::Hold(None), Reason::NoAddress { member, cause }))
    }

    /// Rule 5: the lock has expired, but X said less than a ttl ago that it leads in failsafe mode. Clients go to X.
    pub(super) fn expired_in_failsafe_mode(&self) -> Option<Decision> {
        let (lock, leader) = self.holder_of_expired_lock()?;
        let answers = self.view.answers(&leader.member)?;
        let (last, failsafe_seen) = answers.last.as_ref().zip(answers.failsafe_seen)?;
        let report = &last.value;
        let until = failsafe_seen + lock.lock.ttl;
        // Patroni clears `failsafe_active` once it has renewed the lock. That answer may arrive before the watch
        // reports the renewal, so `holds_lock` counts as well.
        let leads = (report.failsafe_active || report.holds_lock) && report.is_writable();
        let is_ours = self.view.foreign_cluster(&leader.member).is_none();
        let lower_timeline = self.lower_timeline(&leader.member, report.timeline, report.system.as_deref());
        (leads && is_ours && lower_timeline.is_none() && self.now < until).then(|| {
            let member = leader.member.clone();
            let timeline = report.timeline;
            let state = RoutingState::Route(Server { timeline, ..leader });
            decision(state, Reason::Failsafe { member }).recheck_by(until)
        })
    }

    /// Rule 6: the lock has expired in pause, and X is the current leader. Patroni then promotes no member
    /// automatically, so the expired lock is not evidence against X.
    pub(super) fn expired_in_pause(&self) -> Option<Decision> {
        let (_, leader) = self.holder_of_expired_lock()?;
        let member = leader.member.clone();
        (self.view.is_paused() && self.is_current(&leader)).then(|| match self.member_state(&member, None) {
            MemberState::NotWritable { cause } => {
                decision(RoutingState::Hold(Some(leader)), Reason::NotWritable { member, cause })
            }
            MemberState::StandbyLeader => decision(RoutingState::Hold(None), Reason::StandbyCluster { member }),
            MemberState::Writable { .. } | MemberState::WritableByStatus { .. } | MemberState::Unreachable { .. } => {
                decision(RoutingState::Route(leader), Reason::ExpiredInPause { member })
            }
        })
    }

    /// Rule 7: the lock has expired, X is the current leader, and the members may postpone the race for the lock.
    pub(super) fn expired_before_the_race(&self) -> Option<Decision> {
        let (lock, leader) = self.holder_of_expired_lock()?;
        let leader = Some(leader).filter(|leader| self.is_current(leader))?;
        self.hold_before_the_race(&leader, lock.lock_expiry())
    }

    /// Rule 8: the lock has expired. All sessions end, because another member may have been promoted by now.
    pub(super) fn lock_expired(&self) -> Option<Decision> {
        let (lock, leader) = self.holder_of_expired_lock()?;
        let reason = Reason::LockExpired {
            member: leader.member,
            ttl: lock.lock.ttl,
        };
        Some(decision(RoutingState::Fence, reason))
    }

    /// Rule 9: the lock is about to expire, and neither pause nor failsafe mode would keep X as the leader after that.
    pub(super) fn lock_expiring(&self) -> Option<Decision> {
        let (lock, leader) = self.holder_of_fresh_lock()?;
        let applies = Self::margin_start(lock) <= self.now && !self.outlives_the_lock(lock, &leader);
        applies.then(|| {
            let member = leader.member.clone();
            decision(self.hold_keeping(leader), Reason::LockExpiring { member })
        })
    }

    fn outlives_the_lock(&self, lock: &LockView, leader: &Server) -> bool {
        let answers = self.view.answers(&leader.member);
        let failsafe_seen = answers.and_then(|answers| answers.failsafe_seen);
        self.view.is_paused() || failsafe_seen.is_some_and(|seen| lock.renewed < seen)
    }

    /// Rule 10: another cluster answers at X's address.
    pub(super) fn another_cluster_at_the_holder(&self) -> Option<Decision> {
        let (_, leader) = self.holder_of_fresh_lock()?;
        let foreign_cluster = self.view.foreign_cluster(&leader.member)?;
        let reason = self.another_cluster(leader.member.clone().into(), foreign_cluster);
        Some(decision(self.hold_keeping(leader), reason))
    }

    /// Rule 11: a switchover away from X is announced, and rule 12 would route to X.
    pub(super) fn switchover_of_the_holder(&self) -> Option<Decision> {
        match self.lock_fresh()?.state {
            RoutingState::Route(leader) => self.hold_for_switchover(leader),
            RoutingState::Hold(_) | RoutingState::Fence => None,
        }
    }

    /// Rule 12: the lock is fresh. X's own state decides. Sessions to X exist only if X is the current leader.
    ///
    /// | X | new clients | sessions to X | sessions to other members |
    /// |--|--|--|--|
    /// | says that it is a running primary | go to X | stay | end |
    /// | does not answer, and is the current leader | go to X | stay | end |
    /// | does not answer, and is not the current leader | wait | | end |
    /// | says `stopping`, `starting`, `crashed` or in recovery | wait | stay; PostgreSQL ends them | end |
    /// | says that it is a running primary, on a lower timeline than a leader before it | wait | stay | end |
    /// | says that it leads a standby cluster | wait | end | end |
    pub(super) fn lock_fresh(&self) -> Option<Decision> {
        let (lock, leader) = self.holder_of_fresh_lock()?;
        let member = leader.member.clone();
        let route = |timeline, reason| {
            decision(
                RoutingState::Route(Server {
                    timeline,
                    ..leader.clone()
                }),
                reason,
            )
        };
        Some(match self.member_state(&member, lock.held_since) {
            MemberState::Writable { timeline } => route(timeline, Reason::LockAndReport { member }),
            MemberState::WritableByStatus { timeline, cause } => {
                route(timeline, Reason::LockAndPodStatus { member, cause })
            }
            // A short failure of the REST API does not end sessions.
            MemberState::Unreachable { cause } if self.is_current(&leader) => {
                route(leader.timeline, Reason::LockAlone { member, cause })
            }
            MemberState::Unreachable { cause } => {
                decision(RoutingState::Hold(None), Reason::Unverified { member, cause })
            }
            MemberState::NotWritable { cause } => {
                decision(self.hold_keeping(leader), Reason::NotWritable { member, cause })
            }
            MemberState::StandbyLeader => decision(RoutingState::Hold(None), Reason::StandbyCluster { member }),
        })
    }
}
