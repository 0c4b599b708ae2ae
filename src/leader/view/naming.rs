//! The leader according to the other members. Each is asked for its own `/cluster` while the leader's REST API is
//! unreachable and no lock is watched.
//!
//! A member reads the leader for that answer from the DCS. With etcd this is a serializable read: a member whose etcd
//! server is cut off from the others continues to name a leader that was replaced long ago. So one member proves
//! nothing; a majority of all known members is a proof if no member contradicts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::view::{Timestamped, View};

/// The leader that each member named last, and when; `None` if it named none.
pub(super) type NamedLeaders = BTreeMap<MemberName, Timestamped<Option<MemberName>>>;

/// Time for which a member's answer about the leader counts. The member is asked again before that
/// (`probing::pacing::ROUND`). Once the leader's key has expired and the leader's Patroni is frozen, the members need
/// at least 2 s to promote another one (each waits that long for the leader's answer: Patroni's `fetch_node_status`,
/// timeout 2 s), and meanwhile they may be too busy to answer pgnorth. Sessions to the old primary must have ended by
/// then.
pub const NAMING_LIFE: Duration = Duration::from_millis(1500);

/// Time before the end of the ttl at which the members are first asked: enough for a first answer of each.
const ASK_AHEAD: Duration = Duration::from_millis(2_000);

impl View {
    /// Returns the members to ask for their own `/cluster`. Their answers matter once the leader has been unreachable
    /// for a ttl, so they are asked only from shortly before that: if the leader's host is gone, many instances of
    /// pgnorth need not ask before another member takes the lock.
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
        let leader = leader.filter(|_| by_reports).filter(is_unreachable);
        self.members()
            .filter(move |member| leader.is_some_and(|leader| leader != *member))
    }

    /// Returns the time until which the other members' answers keep `leader`, if no more answers arrive; `None` if
    /// they do not keep it. They do if a majority of the known members has named it recently, none of them has named
    /// another one, and none says that it holds the lock itself.
    ///
    /// Only a member that has answered `/primary` under its own name within `life` counts: the answer to `/cluster`
    /// does not contain the name of the member that sent it.
    pub fn named_until(&self, leader: &MemberName, now: Instant, life: Duration) -> Option<Instant> {
        let others = || self.members().filter(|member| *member != leader);
        let report = |member: &MemberName| {
            let last = self.answers(member)?.last.as_ref();
            last.filter(|last| now < last.at + life)
        };
        if others().filter_map(report).any(|report| report.value.holds_lock) {
            return None;
        }
        let heard = others().filter(|member| report(member).is_some());
        let fresh = heard.filter_map(|member| self.named.get(member).filter(|named| now < named.at + NAMING_LIFE));
        let mut named_at = Vec::new();
        for named in fresh {
            (named.value.as_ref() == Some(leader)).then(|| named_at.push(named.at))?;
        }
        named_at.sort_by_key(|at| std::cmp::Reverse(*at));
        let majority = self.members().count() / 2 + 1;
        named_at.get(majority - 1).map(|at| *at + NAMING_LIFE)
    }
}
