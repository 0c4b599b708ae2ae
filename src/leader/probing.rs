//! Plans which members to ask next, and how urgent each answer is. Pure, like `decide`; `pacing` computes the time of
//! each request.
//!
//! Patroni's REST API runs an SQL query for each request, so a healthy cluster gets few requests: while the lock is
//! watched, the plan has only the holder. Routes to replicas may add requests. On suspicion of a failure, the candidate
//! is asked often for a limited time.

pub mod pacing;

use std::time::{Duration, Instant};

use crate::leader::probing::pacing::{ROUND, STEADY};
use crate::leader::view::{LockView, View};
use crate::leader::{MemberName, RoutingState};

/// Time for which the leader is under suspicion after the proxy has reported a failure.
const SUSPECT_FOR: Duration = Duration::from_secs(3);

/// A member to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name of the member.
    pub member: MemberName,
    /// Urgency of its answer.
    pub urgency: Urgency,
}

/// The urgency of a member's next answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The urgency for the leader while the lock is watched and nothing is suspicious, and for members that are asked
    /// only for a route to replicas.
    Steady,
    /// The urgency for any member while no lock is watched and nothing is suspicious, and for the former leader while
    /// the lock has no holder.
    Round,
    /// The urgency for the `/cluster` answer that decides whether an unresponsive leader keeps its sessions.
    Naming,
    /// The urgency for a member that may report a change.
    Alert(Suspicion),
    /// The urgency for the candidate, whose first report of a running primary releases waiting clients, and for a
    /// leader that failed.
    Candidate(Suspicion),
}

/// The reason to ask more often than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Time of the newest event that caused the suspicion.
    pub since: Instant,
    /// Longest interval between two requests, even if the suspicion lasts long and answers are slow.
    pub longest: Duration,
}

/// Returns the members to ask about the leader, and the urgency of each. `held_since` is the time since which there has
/// been no leader for new clients; `None` if there is one. An operator's hold does not count.
pub fn plan(view: &View, state: &RoutingState, held_since: Option<Instant>, now: Instant) -> Vec<Probe> {
    let Some(lock) = view.lock().filter(|_| view.api_unreachable().is_none()) else {
        return every_member(view, state, held_since, now);
    };
    match lock.lock.holder.as_ref() {
        Some(holder) => vec![Probe {
            member: holder.clone(),
            urgency: urgency_of_holder(view, lock, holder, held_since, now),
        }],
        // The lock has no holder. In pause, only the former leader may still be a primary.
        None => state
            .leader()
            .map(|leader| Probe {
                member: leader.member.clone(),
                urgency: Urgency::Round,
            })
            .into_iter()
            .collect(),
    }
}

/// Returns the members to ask for their own `/cluster`, and the urgency of each.
pub fn witnesses(view: &View, state: &RoutingState, now: Instant) -> Vec<Probe> {
    let leader = state.leader().map(|leader| &leader.member);
    // A leader that the proxy cannot reach has no sessions to lose. Its host is probably gone, so every pgnorth asks at
    // this time: a lower urgency limits the number of requests.
    let is_gone = leader.is_some_and(|leader| recent_failure(view, leader, now).is_some());
    let urgency = if is_gone { Urgency::Round } else { Urgency::Naming };
    view.witnesses(leader, now)
        .map(|member| Probe {
            member: member.clone(),
            urgency,
        })
        .collect()
}

/// Returns the number of members in the [`plan`], and the number of these that answer. Members that are asked only for
/// a route to replicas do not count.
pub fn asked_and_answering(view: &View, state: &RoutingState, now: Instant) -> (usize, usize) {
    let probes = plan(view, state, None, now);
    let answering = probes.iter().filter(|probe| view.rest_answers(&probe.member, now));
    (probes.len(), answering.count())
}

fn urgency_of_holder(
    view: &View,
    lock: &LockView,
    holder: &MemberName,
    held_since: Option<Instant>,
    now: Instant,
) -> Urgency {
    let last = view.answers(holder).and_then(|answers| answers.last.as_ref());
    let verified =
        last.is_some_and(|last| last.value.is_writable() && lock.held_since.is_none_or(|since| since <= last.at));
    let suspicion = |since| Suspicion { since, longest: STEADY };
    match (held_since, recent_failure(view, holder, now)) {
        // The holder is still writable although clients are held, for example because a switchover was announced. Its
        // answers show when it stops.
        (Some(held), None) if verified => Urgency::Alert(suspicion(held)),
        (Some(held), failed) => {
            let newest = lock.held_since.max(failed);
            Urgency::Candidate(suspicion(newest.map_or(held, |newest| newest.max(held))))
        }
        (None, Some(failed)) => Urgency::Candidate(suspicion(failed)),
        (None, None) => Urgency::Steady,
    }
}

/// Plans requests to every member, because no lock is watched. While there are sessions, only these answers decide
/// about them, so no interval exceeds `ROUND`.
fn every_member(view: &View, state: &RoutingState, held_since: Option<Instant>, now: Instant) -> Vec<Probe> {
    let leader = state.leader().map(|leader| &leader.member);
    let longest = if leader.is_some() { ROUND } else { STEADY };
    // A request without an answer is not a reason to ask the others more often, because too many requests may be its
    // cause.
    let failed = leader.and_then(|leader| recent_failure(view, leader, now));
    let suspicion = held_since.or(failed).map(|since| Suspicion { since, longest });
    view.members()
        .map(|member| Probe {
            member: member.clone(),
            urgency: match suspicion {
                Some(suspicion) if took_the_lock(view, member) => Urgency::Candidate(suspicion),
                Some(suspicion) => Urgency::Alert(suspicion),
                None => Urgency::Round,
            },
        })
        .collect()
}

/// Returns true if the member's last answer says that it holds the lock and is not writable yet.
fn took_the_lock(view: &View, member: &MemberName) -> bool {
    let last = view.answers(member).and_then(|answers| answers.last.as_ref());
    last.is_some_and(|last| last.value.holds_lock && !last.value.is_writable())
}

fn recent_failure(view: &View, member: &MemberName, now: Instant) -> Option<Instant> {
    view.leader_failure(member).filter(|at| now < *at + SUSPECT_FOR)
}
