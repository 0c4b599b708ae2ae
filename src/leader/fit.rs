//! Decides which members are fit for a route, and why: one pure, total function without I/O and without a clock,
//! beside `decide`.
//!
//! The rules stand in `RULES`, in the order, with the numbers and the titles of docs/concepts/routes.md. For each
//! member the first rule that applies decides. Each rule is one function in `rules`.

mod facts;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::facts::Facts;
pub use self::reason::Unfit;
use crate::leader::view::View;
use crate::leader::{Leader, MemberName, RoutingState};
use crate::route::{Conditions, RouteKind};

/// Time for which a member that the proxy could not reach gets clients only if no other member takes them.
pub const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// Time for which the last known lag of a replica counts, and its part in synchronous replication. Members are asked
/// every 2 s, so several answers in a row are missing by then.
pub const LAG_LIFE: Duration = Duration::from_secs(15);

/// The outcome for one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Every known member, by name.
    pub members: Vec<Judged>,
    /// When to decide again although nothing new was heard; `None` if time changes nothing.
    pub recheck_at: Option<Instant>,
}

/// The outcome for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The member's name.
    pub member: MemberName,
    /// The member at its address, if that is known.
    pub leader: Option<Leader>,
    /// The treatment of clients and sessions.
    pub verdict: Verdict,
    /// The number of the rule that decided, in docs/concepts/routes.md.
    pub rule: usize,
}

/// The treatment of a member's clients and sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets new clients; those of the lowest rank come first.
    Fit(u8),
    /// It gets no new clients, and its sessions stay.
    Closed(Unfit),
    /// It gets no new clients, and its sessions end.
    Out(Unfit),
}

/// The facts about one member that the rules read.
struct Case<'a> {
    view: &'a View,
    /// The decision about the primary.
    primary: &'a RoutingState,
    conditions: &'a Conditions,
    member: &'a MemberName,
    facts: Option<Facts<'a>>,
    now: Instant,
}

/// A rule: its title in docs/concepts/routes.md, and its function, which returns `None` if the rule does not apply.
type Rule = (&'static str, fn(&Case<'_>) -> Option<Verdict>);

/// All rules but the last. A rule's number is its place, counted from 1. M is the member in question.
#[rustfmt::skip]
const RULES: [Rule; 16] = [
    ("M has no known address", |case| case.no_address()),
    ("Another cluster answers at M's address", |case| case.another_cluster()),
    ("Clients of the primary go to M", |case| case.is_the_primary()),
    ("M says that it is a primary", |case| case.says_primary()),
    ("M is no leader", |case| case.no_leader()),
    ("M holds the lock", |case| case.holds_the_lock()),
    ("M has not reported", |case| case.unreported()),
    ("M is not running", |case| case.not_running()),
    ("M is no replica", |case| case.no_replica()),
    ("M is on another timeline", |case| case.other_timeline()),
    ("M has the tag noloadbalance", |case| case.noloadbalance()),
    ("M lacks a tag of the route", |case| case.lacks_a_tag()),
    ("M is not the standby that the route asks for", |case| case.other_standby()),
    ("M does not stream", |case| case.not_streaming()),
    ("M's lag is not known", |case| case.lag_unknown()),
    ("M lags", |case| case.lags()),
];
/// The title of the last rule, which always applies ([`Case::fit`]).
#[cfg(test)]
const LAST_RULE: &str = "M is fit";

/// Decides for each known member. `primary` is the decision about the primary on the same view.
pub fn fit(view: &View, primary: &RoutingState, conditions: &Conditions, now: Instant) -> Fitness {
    let mut names: Vec<_> = view.members().collect();
    names.sort_unstable();
    let case = |member| Case {
        view,
        primary,
        conditions,
        member,
        facts: Facts::newest(view, member, now),
        now,
    };
    let cases: Vec<_> = names.into_iter().map(case).collect();
    Fitness {
        recheck_at: cases.iter().filter_map(Case::next_deadline).min(),
        members: cases.iter().map(Case::judge).collect(),
    }
}

impl Case<'_> {
    fn judge(&self) -> Judged {
        let mut rules = (1..).zip(&RULES);
        let applied = rules.find_map(|(number, (_, rule))| Some((number, rule(self)?)));
        let (rule, verdict) = applied.unwrap_or_else(|| (RULES.len() + 1, self.fit()));
        Judged {
            member: self.member.clone(),
            leader: self.view.address(self.member).ok().map(|address| Leader {
                member: self.member.clone(),
                address,
                timeline: None,
            }),
            verdict,
            rule,
        }
    }
}

impl Fitness {
    /// Returns the members that get new clients.
    pub fn open(&self) -> impl Iterator<Item = &MemberName> {
        let open = self
            .members
            .iter()
            .filter(|judged| matches!(judged.verdict, Verdict::Fit(_)));
        open.map(|judged| &judged.member)
    }

    /// Returns the reason for the route's state, as a sentence for people.
    pub fn why(&self, kind: RouteKind) -> String {
        let open: Vec<_> = self.open().map(MemberName::as_str).collect();
        let causes = self.members.iter().filter_map(|judged| match &judged.verdict {
            Verdict::Fit(_) => None,
            Verdict::Closed(why) | Verdict::Out(why) => Some(format!("{} {why}", judged.member)),
        });
        let causes: Vec<_> = causes.collect();
        match (open.as_slice(), causes.as_slice()) {
            ([], []) => format!("no member is fit for the route {kind}: no member is known"),
            ([], causes) => format!("no member is fit for the route {kind}: {}", causes.join("; ")),
            (open, _) => format!("fit for the route {kind}: {}", open.join(", ")),
        }
    }
}
