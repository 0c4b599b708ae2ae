//! Whom the other members take for the leader, each asked for its own `/cluster`, while the leader's REST API is silent
//! and no lock is watched.
//!
//! A member reads the leader there from the DCS. With etcd that reading is serializable: a member whose etcd server is
//! cut off from the others goes on naming a leader that has long been replaced. So one member proves nothing; a
//! majority of all that are known does, if nobody contradicts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::view::{Heard, View};

/// Whom each member named last, and when: `None` for nobody.
pub(super) type Named = BTreeMap<MemberName, Heard<Option<MemberName>>>;

/// How long a member's naming of the leader stands. It is asked again before that (`probing::pacing::ROUND`). Once the
/// leader's key has expired, the members need at least 2 s to promote another where the leader's Patroni is frozen
/// (each waits as long for its answer: Patroni's `fetch_node_status`, timeout 2 s), and they may be too busy meanwhile
/// to answer here: sessions to the old primary must have ended by then.
pub const WORD_STANDS_FOR: Duration = Duration::from_millis(1500);

/// How long before the ttl is over the members are first asked: time for the first answer of each.
const ASKED_BEFORE: Duration = Duration::from_millis(2_000);

impl View {
    /// Returns the members to ask for their own `/cluster`. Their answers matter once the leader has been silent for a
    /// ttl, so they are asked only from shortly before that: if the leader's host is gone, many pgnorths do not ask
    /// until another member takes the lock.
    pub fn witnesses<'a>(
        &'a self,
        leader: Option<&'a MemberName>,
        now: Instant,
    ) -> impl Iterator<Item = &'a MemberName> {
        let by_reports = self.lock().is_none() || self.api_silence().is_some();
        let silent = |leader: &&MemberName| {
            let answers = self.answers(leader);
            let last = self.last_evidence(Some(leader));
            answers.is_some_and(|answers| answers.silent.is_some())
                && last.is_none_or(|last| last + self.ttl().saturating_sub(ASKED_BEFORE) <= now)
        };
        let leader = leader.filter(|_| by_reports).filter(silent);
        self.members()
            .filter(move |member| leader.is_some_and(|leader| leader != *member))
    }

    /// Until when the others' word keeps `leader`, if nothing more is heard: a majority of the known members named it
    /// lately, and no other one, and nobody says that it holds the lock itself.
    ///
    /// Only a member that has answered `/primary` under its own name within `life` is heard here: a `/cluster` does not
    /// say who has answered it.
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
        let fresh = heard.filter_map(|member| self.named.get(member).filter(|named| now < named.at + WORD_STANDS_FOR));
        let mut named_at = Vec::new();
        for named in fresh {
            (named.value.as_ref() == Some(leader)).then(|| named_at.push(named.at))?;
        }
        named_at.sort_by_key(|at| std::cmp::Reverse(*at));
        let majority = self.members().count() / 2 + 1;
        named_at.get(majority - 1).map(|at| *at + WORD_STANDS_FOR)
    }
}
