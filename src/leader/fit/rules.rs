//! The rules, in order. M is the member in question.

use std::time::{Duration, Instant};

use super::facts::{FRESH, Facts, MemberRole};
use super::{AVOIDED_FOR, Inputs, LAG_LIFE, Outcome, Unfit};
use crate::leader::observation::Standby;
use crate::leader::view::ReplayLag;
use crate::leader::{MemberName, RoutingState};
use crate::route::RouteKind;

// A fit member's rank is the sum of its penalties. Clients go to the members of the lowest rank, as long as one of
// these can be reached.

/// Rank penalty of a member that lacks a preferred tag.
const NOT_PREFERRED: u8 = 1;
/// Rank penalty of the primary as the fallback for replicas.
const FALLBACK: u8 = 4;
/// Rank penalty of a member that failed recently.
const AVOIDED: u8 = 8;

impl Inputs<'_> {
    /// Rule 1: M has no known address. Its sessions stay, because this is not evidence against the server at its former
    /// address.
    pub(super) fn no_address(&self) -> Option<Outcome> {
        let cause = self.address().err()?;
        let cause = cause.to_string();
        Some(Outcome::Closed(Unfit::NoAddress { cause }))
    }

    /// Rule 2: another cluster answers at M's address.
    pub(super) fn another_cluster(&self) -> Option<Outcome> {
        self.view.foreign_cluster(self.member)?;
        Some(Outcome::Closed(Unfit::AnotherCluster))
    }

    /// Rule 3: clients of the primary go to M, or they wait while sessions to M stay.
    pub(super) fn is_the_primary(&self) -> Option<Outcome> {
        let leader = self.primary.leader().filter(|leader| leader.member == *self.member)?;
        let allowed = matches!(
            self.conditions.kind,
            RouteKind::Primary | RouteKind::ReadOnly | RouteKind::Leader
        );
        let is_open = self.primary.open_to() == Some(leader);
        Some(match (allowed || self.conditions.fallback, is_open) {
            (false, _) => Outcome::Out(Unfit::Primary),
            (true, true) => self.fit(),
            (true, false) => Outcome::Closed(Unfit::PrimaryHeld),
        })
    }

    /// Rule 4: M says that it is a primary, but clients of the primary do not go to it. M is a former or a future
    /// leader, and writes to it may be lost.
    pub(super) fn says_primary(&self) -> Option<Outcome> {
        let says = self.facts.as_ref()?.role == MemberRole::Primary;
        says.then_some(Outcome::Out(Unfit::SaysPrimary))
    }

    /// Rule 5: the route leads to a leader, and M is neither the primary (rule 3) nor the running leader of a standby
    /// cluster.
    pub(super) fn no_leader(&self) -> Option<Outcome> {
        if !matches!(self.conditions.kind, RouteKind::Leader | RouteKind::StandbyLeader) {
            return None;
        }
        let runs = self.facts.as_ref().is_some_and(Facts::is_running);
        Some(match self.leads_a_standby_cluster() && runs {
            true => self.fit(),
            false => Outcome::Out(Unfit::NoLeader),
        })
    }

    /// Rule 6: M holds the lock and is not the primary yet. PostgreSQL keeps sessions during a promotion, so they end
    /// only once M is the primary, and only if the route does not lead to the primary.
    pub(super) fn holds_the_lock(&self) -> Option<Outcome> {
        let watched = self.view.lock().filter(|_| self.view.api_unreachable().is_none());
        let holder = watched.and_then(|lock| lock.lock.holder.as_ref());
        let says_so = self.facts.as_ref().is_some_and(|facts| facts.holds_lock);
        let leads_a_standby_cluster = self.leads_a_standby_cluster();
        let holds = holder.map_or(says_so, |holder: &MemberName| holder == self.member);
        (holds && !leads_a_standby_cluster).then_some(Outcome::Closed(Unfit::Promoting))
    }

    /// Rule 7: M has not reported.
    pub(super) fn unreported(&self) -> Option<Outcome> {
        self.facts.is_none().then_some(Outcome::Closed(Unfit::Unreported))
    }

    /// Rule 8: M is not running.
    pub(super) fn not_running(&self) -> Option<Outcome> {
        let facts = self.facts.as_ref().filter(|facts| !facts.is_running())?;
        let state = facts.state.to_owned();
        Some(Outcome::Out(Unfit::NotRunning { state }))
    }

    /// Rule 9: M is not a replica. The leader of a standby cluster counts as a replica only for `read-only`, because
    /// Patroni's `/replica` excludes it.
    pub(super) fn no_replica(&self) -> Option<Outcome> {
        let facts = self.facts.as_ref()?;
        let reads = self.conditions.kind == RouteKind::ReadOnly && self.leads_a_standby_cluster();
        let role = facts.role_text.to_owned();
        (facts.role != MemberRole::Replica && !reads).then_some(Outcome::Out(Unfit::NotReplica { role }))
    }

    /// Rule 10: M is on another timeline than the leader, which has been on its timeline for a whole ttl. The ttl gives
    /// each replica time to follow a promotion.
    pub(super) fn other_timeline(&self) -> Option<Outcome> {
        let its = self.facts.as_ref()?.timeline?;
        let leaders = self.view.newest_timeline().filter(|leaders| *leaders != its)?;
        let is_over = self.followed_by()? <= self.now;
        is_over.then_some(Outcome::Out(Unfit::OtherTimeline { its, leaders }))
    }

    /// Rule 11: M has the tag `noloadbalance`. It excludes M from load balancing, and M's sessions may finish.
    pub(super) fn noloadbalance(&self) -> Option<Outcome> {
        let tagged = self.facts.as_ref()?.tags.is_on("noloadbalance");
        tagged.then_some(Outcome::Closed(Unfit::NoLoadBalance))
    }

    /// Rule 12: M lacks a tag that the route requires.
    pub(super) fn lacks_a_tag(&self) -> Option<Outcome> {
        let tags = self.facts.as_ref()?.tags;
        let mut wanted = self.conditions.tags.iter();
        let (tag, value) = wanted.find(|(tag, value)| tags.get(tag) != Some(value))?.clone();
        Some(Outcome::Closed(Unfit::OtherTag { tag, value }))
    }

    /// Rule 13: according to Patroni, M is not the kind of standby that the route requires, or its kind is unknown.
    /// Sessions to a former synchronous standby end, because their reads may be stale. All other sessions stay.
    pub(super) fn other_standby(&self) -> Option<Outcome> {
        let wanted = match self.conditions.kind {
            RouteKind::Sync => Standby::Sync,
            RouteKind::Quorum => Standby::Quorum,
            RouteKind::Async => Standby::Async,
            _ => return None,
        };
        let unfit = Unfit::OtherStandby {
            wanted: self.conditions.kind,
        };
        match self.standby() {
            Some(standby) if standby == wanted => None,
            Some(_) if wanted == Standby::Async => Some(Outcome::Closed(unfit)),
            Some(_) => Some(Outcome::Out(unfit)),
            None => Some(Outcome::Closed(Unfit::StandbyUnknown)),
        }
    }

    /// Rule 14: the route requires streaming, and neither M's newest facts nor the leader's pg_stat_replication shows
    /// that M streams.
    pub(super) fn not_streaming(&self) -> Option<Outcome> {
        let says_so = self.facts.as_ref()?.replication_state == Some("streaming");
        let streams = says_so || self.leader_sees_it_stream();
        (self.conditions.streaming && !streams).then_some(Outcome::Closed(Unfit::NotStreaming))
    }

    /// Rule 15: M's lag is unknown or too old, so it cannot satisfy the route's `max-lag`.
    pub(super) fn lag_unknown(&self) -> Option<Outcome> {
        let limit = self.conditions.max_lag?;
        let known = self
            .lag()
            .is_some_and(|lag| lag.at_most <= limit || self.now < lag.at + LAG_LIFE);
        (!known).then_some(Outcome::Closed(Unfit::LagUnknown))
    }

    /// Rule 16: M lags. Its replay was too far behind the leader when M's position was read, and may still be.
    pub(super) fn lags(&self) -> Option<Outcome> {
        let limit = self.conditions.max_lag?;
        let lag = self.lag()?;
        let lags = limit < lag.then && limit < lag.at_most;
        lags.then_some(match self.conditions.cut_lagging {
            true => Outcome::Out(Unfit::Lagging { limit }),
            false => Outcome::Closed(Unfit::Lagging { limit }),
        })
    }

    /// Rule 17: M is fit. Its rank is higher if it failed recently, or if other members are preferred.
    pub(super) fn fit(&self) -> Outcome {
        let tags = self.facts.as_ref().map(|facts| facts.tags);
        let has = |(tag, value): &(String, String)| tags.is_some_and(|tags| tags.get(tag) == Some(value));
        let is_primary = self
            .primary
            .leader()
            .is_some_and(|leader| leader.member == *self.member);
        let ranks = [
            (!self.conditions.prefer.iter().all(has), NOT_PREFERRED),
            (is_primary && self.conditions.fallback, FALLBACK),
            (self.avoided_until().is_some_and(|until| self.now < until), AVOIDED),
        ];
        let applying = ranks.iter().filter(|(applies, _)| *applies);
        Outcome::Fit(applying.map(|(_, rank)| rank).sum())
    }

    /// Returns M's lag, unless the leader's position is older than a ttl.
    fn lag(&self) -> Option<ReplayLag> {
        let lag = self.view.replay_lag(self.member)?;
        (self.now < lag.leader_at + self.view.ttl()).then_some(lag)
    }

    /// Returns M's kind of standby. Patroni's record in the DCS takes precedence, because the members' own reports
    /// repeat it up to a `loop_wait` later.
    fn standby(&self) -> Option<Standby> {
        let recorded = |grace| self.view.recorded_standby(self.member, grace, self.now);
        let reported = || self.reported_standby().map(|(standby, _)| standby);
        recorded(Duration::ZERO)
            .or_else(reported)
            .or_else(|| recorded(LAG_LIFE))
    }

    /// Returns M's kind of standby according to its own newest answer or its row in `/cluster`, and the time of that
    /// statement.
    fn reported_standby(&self) -> Option<(Standby, Instant)> {
        let last = self.view.answers(self.member).and_then(|answers| answers.last.as_ref());
        let reported = last.and_then(|last| Some((last.value.replication.standby?, last.at)));
        let row = self.view.condition(self.member);
        let listed = row.and_then(|(row, at)| {
            let standby = match row.role.as_deref()? {
                "sync_standby" => Standby::Sync,
                "quorum_standby" => Standby::Quorum,
                "replica" => Standby::Async,
                _ => return None,
            };
            Some((standby, at))
        });
        let fresh = |(_, at): &(Standby, Instant)| self.now < *at + LAG_LIFE;
        reported.filter(fresh).or(listed.filter(fresh))
    }

    fn leader_sees_it_stream(&self) -> bool {
        let leader = self
            .primary
            .leader()
            .and_then(|leader| self.view.answers(&leader.member));
        let last = leader.and_then(|answers| answers.last.as_ref());
        last.is_some_and(|last| self.now < last.at + LAG_LIFE && last.value.replication.streaming.contains(self.member))
    }

    /// Returns the next instant at which the passage of time may make another rule apply.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let lag = self.conditions.max_lag.and_then(|_| self.view.replay_lag(self.member));
        let depends = self.conditions.kind.depends_on_standbys();
        let standby = depends.then(|| self.reported_standby()).flatten();
        let record = depends.then(|| self.view.standbys_unread_since()).flatten().flatten();
        let last = |member: &MemberName| Some(self.view.answers(member)?.last.as_ref()?.at);
        let leader = self.primary.leader().filter(|_| self.conditions.streaming);
        let deadlines = [
            last(self.member).map(|at| at + FRESH),
            leader.and_then(|leader| last(&leader.member)).map(|at| at + LAG_LIFE),
            self.followed_by(),
            self.avoided_until(),
            lag.map(|lag| lag.at + LAG_LIFE),
            lag.map(|lag| lag.leader_at + self.view.ttl()),
            standby.map(|(_, at)| at + LAG_LIFE),
            record.map(|since| since + LAG_LIFE),
        ];
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
        let failed = self.view.leader_failure(self.member);
        let pooler_failed = self.view.pooler_failure(self.member, self.upstream);
        Some(failed.max(pooler_failed)? + AVOIDED_FOR)
    }
}
