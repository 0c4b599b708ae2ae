//! Whom to ask next, and how often: pure, like `decide`.
//!
//! Patroni's REST API runs one SQL query for each request, so a quiet cluster is asked gently: its leader alone while the lock is watched. On suspicion
//! the candidate is asked often, for a bounded time.

use std::time::{Duration, Instant};

use crate::leader::view::{LockView, View};
use crate::leader::{MemberName, RoutingState};

/// The leader, while all is well and the lock is watched.
const STEADY: Duration = Duration::from_secs(2);
/// Every member, when reports alone decide.
const ROUND: Duration = Duration::from_secs(1);
/// The candidate, from the moment of suspicion: its first true answer releases the waiting clients.
const BURST: Duration = Duration::from_millis(25);
/// How long a burst may last.
const BURST_FOR: Duration = Duration::from_secs(5);
/// After the burst, and where the candidate is not known.
const ALERT: Duration = Duration::from_millis(100);
/// How long members that are no candidates are asked that often.
const ALERT_FOR: Duration = Duration::from_secs(60);
/// How long one complaint of the proxy keeps suspicion up.
const SUSPECT_FOR: Duration = Duration::from_secs(3);

/// A member to ask, and the pause between two requests to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whom.
    pub member: MemberName,
    /// The time from one request to the next; a request under way delays the next.
    pub every: Duration,
}

/// Whom to ask, and how often, given what is known, what was decided, and since when new clients have been held (`None` while they are not).
pub fn plan(view: &View, state: &RoutingState, held_since: Option<Instant>, now: Instant) -> Vec<Probe> {
    let Some(lock) = view.lock().filter(|_| view.api_silence().is_none()) else {
        return every_member(view, state, held_since, now);
    };
    match lock.lock.holder.as_ref() {
        Some(holder) => vec![Probe {
            member: holder.clone(),
            every: the_holder(view, lock, holder, held_since, now),
        }],
        // Nobody holds the lock: the former leader alone may still have something to say (in pause).
        None => state
            .leader()
            .map(|leader| Probe {
                member: leader.member.clone(),
                every: ROUND,
            })
            .into_iter()
            .collect(),
    }
}

/// How many are asked now, and how many of them answer. Whoever was asked once, before the lock moved on, does not count.
pub fn asked_and_answering(view: &View, state: &RoutingState, now: Instant) -> (usize, usize) {
    let probes = plan(view, state, None, now);
    let answering = probes.iter().filter(|probe| view.rest_answers(&probe.member, now));
    (probes.len(), answering.count())
}

fn the_holder(
    view: &View,
    lock: &LockView,
    holder: &MemberName,
    held_since: Option<Instant>,
    now: Instant,
) -> Duration {
    let last = view.answers(holder).and_then(|answers| answers.last.as_ref());
    let verified =
        last.is_some_and(|last| last.value.is_writable() && lock.held_since.is_none_or(|since| since <= last.at));
    match (held_since, recent_complaint(view, holder, now)) {
        // Still writable: a switchover was announced, and its answer is needed only to notice that it stops.
        (Some(_), None) if verified => ALERT,
        (Some(held), complaint) => burst(
            now,
            lock.held_since
                .map_or(held, |since| since.max(held))
                .max(complaint.unwrap_or(held)),
        ),
        (None, Some(complaint)) => burst(now, complaint),
        (None, None) => STEADY,
    }
}

fn every_member(view: &View, state: &RoutingState, held_since: Option<Instant>, now: Instant) -> Vec<Probe> {
    let leader = state.leader().map(|leader| &leader.member);
    let leader_suspect = leader.and_then(|leader| {
        let silent = view.answers(leader).and_then(|answers| answers.silent.as_ref());
        recent_complaint(view, leader, now).or(silent.map(|silent| silent.at))
    });
    let suspicion = held_since.or(leader_suspect);
    view.members()
        .map(|member| Probe {
            member: member.clone(),
            every: match suspicion {
                Some(since) if took_the_lock(view, member) => burst(now, since),
                Some(since) if now < since + ALERT_FOR => ALERT,
                _ => ROUND,
            },
        })
        .collect()
}

/// It says that it holds the lock, and is not writable yet.
fn took_the_lock(view: &View, member: &MemberName) -> bool {
    let last = view.answers(member).and_then(|answers| answers.last.as_ref());
    last.is_some_and(|last| last.value.holds_lock && !last.value.is_writable())
}

fn burst(now: Instant, since: Instant) -> Duration {
    if now < since + BURST_FOR { BURST } else { ALERT }
}

fn recent_complaint(view: &View, member: &MemberName, now: Instant) -> Option<Instant> {
    view.complaint(member).filter(|at| now < *at + SUSPECT_FOR)
}
