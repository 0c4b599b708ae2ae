//! The leader according to the other members. Each of them is asked for `/cluster` while the leader's REST API is
//! unreachable and no lock is watched.
//!
//! A member reads the leader for that answer from the DCS. With etcd this is a serializable read, so a member whose
//! etcd server is cut off from the others continues to name a leader that was replaced long ago. Therefore the answer
//! of one member is not proof, but a majority of all known members is, unless a member contradicts it.

use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::observation::{NamedLeader, Report};
use crate::leader::view::{Timestamped, View};

/// Time for which a member's answer about the leader counts from its arrival. The member is asked again before this
/// time is over (`probing::pacing`). Once the key of a leader with a frozen Patroni has expired, the members need at
/// least 2 s to promote another member, because each waits that long for the leader's answer (`fetch_node_status`,
/// timeout 2 s). During these 2 s they may be too busy to answer pgnorth, and by the end of these 2 s, sessions to the
/// old primary must have ended.
const NAMING_LIFE: Duration = Duration::from_millis(1_500);

/// Longest time for which the answer counts from the request on. A slow answer may contain what the member read at the
/// start of the request.
const NAMING_AGE: Duration = Duration::from_millis(2_000);

/// Longest time between two answers of a member that still form an unbroken sequence. It is Patroni's shortest
/// retry_timeout: a leader that loses the DCS for less than this time does not demote itself.
const UNBROKEN: Duration = Duration::from_secs(3);

/// Time before the end of the ttl at which the members are first asked. It suffices for a first answer of each member.
const ASK_AHEAD: Duration = Duration::from_millis(2_000);

/// A member's newest answer about the leader.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// The leader that the member names; `None` if it names no leader.
    leader: Option<NamedLeader>,
    /// Arrival of the first answer in the unbroken sequence of equal answers.
    since: Instant,
    /// Arrival of the answer.
    at: Instant,
    /// End of the time for which the answer counts.
    until: Instant,
}

impl Naming {
    pub(super) fn new(known: Option<&Self>, leader: Option<NamedLeader>, asked: Instant, at: Instant) -> Self {
        let says_the_same = known.filter(|known| known.leader == leader && at < known.at + UNBROKEN);
        Self {
            leader,
            since: says_the_same.map_or(at, |known| known.since),
            at,
            until: (at + NAMING_LIFE).min(asked + NAMING_AGE),
        }
    }

    fn names(&self, member: &MemberName) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.member == *member)
    }
}

impl View {
    /// Returns the members to ask for their own `/cluster`. Their answers matter once the leader has been unreachable
    /// for a ttl, so pgnorth begins to ask them only shortly before that time. If the leader's host is gone, this
    /// avoids requests of many pgnorths before another member acquires the lock. Without a leader, the members are
    /// asked while `/cluster` still names the last leader, because the route to it may reopen.
    pub fn witnesses<'a>(
        &'a self,
        leader: Option<&'a MemberName>,
        now: Instant,
    ) -> impl Iterator<Item = &'a MemberName> {
        let by_reports = self.lock().is_none() || self.api_unreachable().is_some();
        let is_unreachable = |leader: &&MemberName| {
            let answers = self.answers(leader);
            let last = self.last_evidence(Some(leader));
            answers.is_some_and(|answers| answers.unreachable.is_some())
                && last.is_none_or(|last| last + self.ttl().saturating_sub(ASK_AHEAD) <= now)
        };
        let leader = leader.or_else(|| {
            let (last, _) = self.silent_leader()?;
            self.cluster
                .leader
                .as_ref()
                .is_some_and(|named| named.value == *last)
                .then_some(last)
        });
        let leader = leader.filter(|_| by_reports).filter(is_unreachable);
        self.members()
            .filter(move |member| leader.is_some_and(|leader| leader != *member))
    }

    /// Returns the time until which the other members' answers keep `leader`, if no more answers arrive; `None` if they
    /// do not keep it. They keep it if a majority of the known members has named it recently, no member has recently
    /// named another leader or none, and no other member says that it holds the lock.
    ///
    /// Only a member that has answered `/primary` under its own name within `life` counts: the answer to `/cluster`
    /// does not contain the name of the member that sent it.
    pub fn named_until(&self, leader: &MemberName, now: Instant, life: Duration) -> Option<Instant> {
        let heard = || {
            self.others(leader)
                .filter_map(|member| Some((member, self.recent_report(member, now, life)?)))
        };
        if heard().any(|(_, report)| report.holds_lock) {
            return None;
        }
        let counts = heard().filter_map(|(member, _)| self.named.get(member).filter(|naming| now < naming.until));
        let mut untils = Vec::new();
        for naming in counts {
            naming.names(leader).then(|| untils.push(naming.until))?;
        }
        untils.sort_by_key(|until| std::cmp::Reverse(*until));
        let majority = self.members().count() / 2 + 1;
        untils.get(majority - 1).copied()
    }

    /// Returns the member whose last answer said that it is a running primary and holds the lock, together with that
    /// answer. The member must no longer answer, and no other member may be known to have succeeded it.
    pub fn silent_leader(&self) -> Option<(&MemberName, &Timestamped<Report>)> {
        let silent = self.answers.iter().filter(|(_, answers)| answers.unreachable.is_some());
        let said = silent.filter_map(|(member, answers)| Some((member, answers.last.as_ref()?)));
        let led = said.filter(|(_, last)| last.value.holds_lock && last.value.is_writable());
        led.max_by_key(|(_, last)| last.at).filter(|(member, last)| {
            let lock_contradicts = self.lock().is_some_and(|view| {
                view.lock.holder.as_ref() != Some(*member) || view.held_since.is_some_and(|since| last.at < since)
            });
            !lock_contradicts && !self.is_succeeded(member)
        })
    }

    /// Returns the time since which every other known member has named `leader` without a gap as running on that
    /// timeline. `None` if a member does not name it in this way, has not answered recently, or says that it is itself
    /// a primary or holds the lock.
    pub fn named_by_all_since(
        &self,
        leader: &MemberName,
        timeline: Option<u32>,
        now: Instant,
        life: Duration,
    ) -> Option<Instant> {
        self.named_until(leader, now, life)?;
        let mut newest = None;
        for member in self.others(leader) {
            self.recent_report(member, now, life)
                .filter(|report| !report.is_writable())?;
            let naming = self.named.get(member).filter(|naming| now < naming.until)?;
            let running_on = naming.leader.as_ref().and_then(|leader| leader.running_on);
            running_on.filter(|running_on| Some(*running_on) == timeline)?;
            newest = newest.max(Some(naming.since));
        }
        newest
    }

    fn others<'a>(&'a self, leader: &MemberName) -> impl Iterator<Item = &'a MemberName> {
        self.members().filter(move |member| *member != leader)
    }

    fn recent_report(&self, member: &MemberName, now: Instant, life: Duration) -> Option<&Report> {
        let last = self.answers(member)?.last.as_ref();
        last.filter(|last| now < last.at + life).map(|last| &last.value)
    }
}
