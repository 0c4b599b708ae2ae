//! The rules, in their order. M is the member in question.

use std::time::Instant;

use super::facts::MemberRole;
use super::{AVOIDED_FOR, Case, Unfit, Verdict};
use crate::leader::{MemberName, RoutingState};
use crate::route::RouteKind;

/// Ranks of members that are fit: the lowest gets clients, as long as one of that rank takes them.
const USUAL: u8 = 0;
/// The proxy could not reach it a moment ago.
const AVOIDED: u8 = 8;

impl Case<'_> {
    /// Rule 1: M has no known address. That says nothing about the server at its former one.
    pub(super) fn no_address(&self) -> Option<Verdict> {
        let cause = self.view.address(self.member).err()?;
        let cause = cause.to_string();
        Some(Verdict::Closed(Unfit::NoAddress { cause }))
    }

    /// Rule 2: another cluster answers at M's address.
    pub(super) fn another_cluster(&self) -> Option<Verdict> {
        self.view.foreign_cluster(self.member)?;
        Some(Verdict::Closed(Unfit::AnotherCluster))
    }

    /// Rule 3: clients of the primary go to M, or its sessions stay while they wait.
    pub(super) fn is_the_primary(&self) -> Option<Verdict> {
        let leader = self.primary.leader().filter(|leader| leader.member == *self.member)?;
        Some(match (self.conditions.kind, self.primary.open_to()) {
            (RouteKind::Replica, _) => Verdict::Out(Unfit::Primary),
            (RouteKind::Primary | RouteKind::ReadOnly, Some(open)) if open == leader => self.fit(),
            (RouteKind::Primary | RouteKind::ReadOnly, _) => Verdict::Closed(Unfit::PrimaryHeld),
        })
    }

    /// Rule 4: M says that it is a primary, and clients of the primary do not go to it: it is a former or a future
    /// leader, and may lose what is written to it.
    pub(super) fn says_primary(&self) -> Option<Verdict> {
        let says = self.facts.as_ref()?.role == MemberRole::Primary;
        says.then_some(Verdict::Out(Unfit::SaysPrimary))
    }

    /// Rule 5: M holds the lock and is not the primary yet. PostgreSQL keeps sessions at a promotion, so that they end
    /// only once M is one, and only if the route does not lead to the primary.
    pub(super) fn holds_the_lock(&self) -> Option<Verdict> {
        let watched = self.view.lock().filter(|_| self.view.api_unreachable().is_none());
        let holder = watched.and_then(|lock| lock.lock.holder.as_ref());
        let says_so = self.facts.as_ref().is_some_and(|facts| facts.holds_lock);
        let leads_a_standby_cluster = self.leads_a_standby_cluster();
        let holds = holder.map_or(says_so, |holder: &MemberName| holder == self.member);
        (holds && !leads_a_standby_cluster).then_some(Verdict::Closed(Unfit::Promoting))
    }

    /// Rule 6: M has not reported.
    pub(super) fn unreported(&self) -> Option<Verdict> {
        self.facts.is_none().then_some(Verdict::Closed(Unfit::Unreported))
    }

    /// Rule 7: M is not running.
    pub(super) fn not_running(&self) -> Option<Verdict> {
        let facts = self.facts.as_ref().filter(|facts| !facts.is_running())?;
        let state = facts.state.to_owned();
        Some(Verdict::Out(Unfit::NotRunning { state }))
    }

    /// Rule 8: M is no replica. The leader of a standby cluster is one, but Patroni's `/replica` leaves it out.
    pub(super) fn no_replica(&self) -> Option<Verdict> {
        let facts = self.facts.as_ref()?;
        let reads = self.conditions.kind == RouteKind::ReadOnly && self.leads_a_standby_cluster();
        let role = facts.role_text.to_owned();
        (facts.role != MemberRole::Replica && !reads).then_some(Verdict::Out(Unfit::NotReplica { role }))
    }

    /// Rule 9: M has been on another timeline than the leader for a whole ttl. After a promotion each replica needs a
    /// moment to follow.
    pub(super) fn other_timeline(&self) -> Option<Verdict> {
        let its = self.facts.as_ref()?.timeline?;
        let leaders = self.view.newest_timeline().filter(|leaders| *leaders != its)?;
        let is_over = self.followed_by()? <= self.now;
        is_over.then_some(Verdict::Out(Unfit::OtherTimeline { its, leaders }))
    }

    /// Rule 10: M has the tag `noloadbalance`: an operator takes it out, and its sessions may finish.
    pub(super) fn noloadbalance(&self) -> Option<Verdict> {
        let tagged = self.facts.as_ref()?.tags.is_on("noloadbalance");
        tagged.then_some(Verdict::Closed(Unfit::NoLoadBalance))
    }

    /// Rule 11: M is fit. If the proxy could not reach it a moment ago, the others come first.
    pub(super) fn fit(&self) -> Verdict {
        match self.avoided_until() {
            Some(until) if self.now < until => Verdict::Fit(AVOIDED),
            _ => Verdict::Fit(USUAL),
        }
    }

    /// Returns the next instant at which time alone may make another rule apply.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.followed_by(), self.avoided_until()];
        deadlines.into_iter().flatten().filter(|at| self.now < *at).min()
    }

    fn leads_a_standby_cluster(&self) -> bool {
        let says_so = || {
            self.facts
                .as_ref()
                .is_some_and(|facts| facts.role == MemberRole::StandbyLeader)
        };
        !matches!(self.primary, RoutingState::Route(_)) && says_so()
    }

    /// Returns the time by which replicas must have followed the leader to its timeline.
    fn followed_by(&self) -> Option<Instant> {
        Some(self.view.newest_timeline_since()? + self.view.ttl())
    }

    fn avoided_until(&self) -> Option<Instant> {
        Some(self.view.leader_failure(self.member)? + AVOIDED_FOR)
    }
}
