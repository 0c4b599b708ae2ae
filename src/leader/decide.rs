//! Decides which member is the leader now, and why. `decide` is a pure, total function without I/O and without a clock.
//!
//! `RULES` lists the rules with the order, numbers and titles of docs/concepts/deciding.md. The first rule that applies
//! decides. Each rule is one function; `member_state` has the table of evidence that they use.

mod by_lock;
mod by_reports;
mod clusters;
mod decision;
mod inputs;
mod member_state;
mod reports;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use decision::{Decision, HoldEffect};
use inputs::Inputs;

use crate::leader::Server;
use crate::leader::view::View;

/// The settings that decisions depend on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Longest time that an announced switchover holds new clients while the leader still runs.
    pub switchover_hold: Duration,
    /// Time for which an answer of a member's REST API counts while no lock is watched.
    pub report_life: Duration,
}

/// A rule: its title in docs/concepts/deciding.md, and its function, which returns `None` if the rule does not apply.
type Rule = (&'static str, fn(&Inputs<'_>) -> Option<Decision>);

/// All rules except the last. A rule's number is its position, counted from 1.
#[rustfmt::skip]
const RULES: [Rule; 22] = [
    ("A leader object has not been read yet", |inputs| inputs.lock_unread()),
    // The lock is watched; X is the member that it names.
    ("The lock has no holder", |inputs| inputs.lock_released()),
    ("The cluster is a standby cluster", |inputs| inputs.standby_cluster()),
    ("X has no known address", |inputs| inputs.no_address()),
    ("The lock has expired in failsafe mode", |inputs| inputs.expired_in_failsafe_mode()),
    ("The lock has expired in pause", |inputs| inputs.expired_in_pause()),
    ("The lock has expired before the race for it", |inputs| inputs.expired_before_the_race()),
    ("The lock has expired", |inputs| inputs.lock_expired()),
    ("The lock is about to expire", |inputs| inputs.lock_expiring()),
    ("Another cluster answers at X's address", |inputs| inputs.another_cluster_at_the_holder()),
    ("A switchover away from X is announced", |inputs| inputs.switchover_of_the_holder()),
    ("The lock is fresh", |inputs| inputs.lock_fresh()),
    // No lock is watched: the members' answers decide; X is the member in question.
    ("The cluster to follow is unknown", |inputs| inputs.cluster_unknown()),
    ("Several members are equally primary", |inputs| inputs.split_brain()),
    ("A switchover away from the primary is announced", |inputs| inputs.switchover_of_the_primary()),
    ("A member says that it is a running primary", |inputs| inputs.reported_primary()),
    ("The ttl is over, and a majority names X", |inputs| inputs.named_by_majority()),
    ("The ttl is over before the race for the lock", |inputs| inputs.unheard_before_the_race()),
    ("The ttl is over", |inputs| inputs.unheard_for_ttl()),
    ("X says that it does not accept writes", |inputs| inputs.leader_not_writable()),
    ("X does not answer", |inputs| inputs.leader_unreachable()),
    ("Every other member names X again", |inputs| inputs.named_again()),
];
/// The title of the last rule, which always applies ([`Inputs::no_leader`]).
#[cfg(test)]
const LAST_RULE: &str = "There is no leader";

/// Decides which member is the leader. `current` is the leader whose sessions are kept now.
pub fn decide(view: &View, current: Option<&Server>, now: Instant, policy: &Policy) -> Decision {
    let inputs = Inputs::new(view, current, now, policy);
    let mut rules = (1..).zip(&RULES);
    let applied = rules.find_map(|(number, (_, rule))| Some((number, rule(&inputs)?)));
    let (rule, decision) = applied.unwrap_or_else(|| (RULES.len() + 1, inputs.no_leader()));
    Decision { rule, ..decision }
        .recheck_at(inputs.next_deadline())
        .held_by(view.operator_hold(), now)
}
