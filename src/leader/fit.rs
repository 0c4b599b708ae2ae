//! Decides which members are fit for a route, and why. Like `decide`, `fit` is a pure, total function without I/O and
//! without a clock.
//!
//! `RULES` lists the rules with the order, numbers and titles of docs/concepts/routes.md. For each member, the first
//! rule that applies decides. Each rule is one function in `rules`.

mod facts;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::facts::Facts;
pub use self::reason::Unfit;
use crate::leader::view::View;
use crate::leader::{Address, MemberName, RoutingState, Server, UnknownAddress};
use crate::route::{Conditions, RouteKind, Upstream};

/// Time for which a member that failed gets clients only if no other fit member can be reached.
pub const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// Time for which a replica's last known lag and kind of standby count, and the leader's last list of the members that
/// stream from it. Members are asked at least every 2 s, so several answers in a row are missing by then.
pub const LAG_LIFE: Duration = Duration::from_secs(15);

/// The fitness of all members for one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Every known member, sorted by name.
    pub members: Vec<Judged>,
    /// Time of the next decision without a new observation; `None` if the passage of time changes nothing.
    pub recheck_at: Option<Instant>,
}

/// The outcome for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The member's name.
    pub member: MemberName,
    /// Its server, if the address is known.
    pub server: Option<Server>,
    /// The treatment of clients and sessions.
    pub outcome: Outcome,
    /// The number of the rule that decided, in docs/concepts/routes.md.
    pub rule: usize,
}

/// The treatment of a member's clients and sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The member gets new clients. Members of the lowest rank are preferred.
    Fit(u8),
    /// The member gets no new clients, and its sessions stay.
    Closed(Unfit),
    /// The member gets no new clients, and its sessions end.
    Out(Unfit),
}

/// The facts about one member that the rules read.
struct Inputs<'a> {
    view: &'a View,
    /// The decision about the primary.
    primary: &'a RoutingState,
    conditions: &'a Conditions,
    /// The server of the member that sessions go to: PostgreSQL or a pooler.
    upstream: Upstream,
    member: &'a MemberName,
    facts: Option<Facts<'a>>,
    now: Instant,
}

/// A rule: its title in docs/concepts/routes.md, and its function, which returns `None` if the rule does not apply.
type Rule = (&'static str, fn(&Inputs<'_>) -> Option<Outcome>);

/// All rules except the last. A rule's number is its position, counted from 1. M is the member in question.
#[rustfmt::skip]
const RULES: [Rule; 16] = [
    ("M has no known address", |inputs| inputs.no_address()),
    ("Another cluster answers at M's address", |inputs| inputs.another_cluster()),
    ("Clients of the primary go to M", |inputs| inputs.is_the_primary()),
    ("M says that it is a primary", |inputs| inputs.says_primary()),
    ("M is not a leader", |inputs| inputs.no_leader()),
    ("M holds the lock", |inputs| inputs.holds_the_lock()),
    ("M has not reported", |inputs| inputs.unreported()),
    ("M is not running", |inputs| inputs.not_running()),
    ("M is not a replica", |inputs| inputs.no_replica()),
    ("M is on another timeline", |inputs| inputs.other_timeline()),
    ("M has the tag noloadbalance", |inputs| inputs.noloadbalance()),
    ("M lacks a tag of the route", |inputs| inputs.lacks_a_tag()),
    ("M is not the standby that the route asks for", |inputs| inputs.other_standby()),
    ("M does not stream", |inputs| inputs.not_streaming()),
    ("M's lag is unknown", |inputs| inputs.lag_unknown()),
    ("M lags", |inputs| inputs.lags()),
];
/// The title of the last rule, which always applies ([`Inputs::fit`]).
#[cfg(test)]
const LAST_RULE: &str = "M is fit";

/// Decides which known members are fit. `primary` is the decision about the primary for the same view, and `upstream`
/// is the server of a member that the route's sessions go to.
pub fn fit(view: &View, primary: &RoutingState, conditions: &Conditions, upstream: Upstream, now: Instant) -> Fitness {
    let mut names: Vec<_> = view.members().collect();
    names.sort_unstable();
    let inputs = |member| Inputs {
        view,
        primary,
        conditions,
        upstream,
        member,
        facts: Facts::newest(view, member, now),
        now,
    };
    let all: Vec<_> = names.into_iter().map(inputs).collect();
    Fitness {
        recheck_at: all.iter().filter_map(Inputs::next_deadline).min(),
        members: all.iter().map(Inputs::judge).collect(),
    }
}

impl Inputs<'_> {
    fn judge(&self) -> Judged {
        let mut rules = (1..).zip(&RULES);
        let applied = rules.find_map(|(number, (_, rule))| Some((number, rule(self)?)));
        let (rule, outcome) = applied.unwrap_or_else(|| (RULES.len() + 1, self.fit()));
        Judged {
            member: self.member.clone(),
            server: self.address().ok().map(|address| Server {
                member: self.member.clone(),
                address,
                timeline: None,
            }),
            outcome,
            rule,
        }
    }

    /// Returns the address that sessions to the member go to, or the reason why it is unknown.
    fn address(&self) -> Result<Address, UnknownAddress> {
        self.view.address_of(self.member, self.upstream)
    }
}

impl Fitness {
    /// Returns the members that get new clients.
    pub fn open(&self) -> impl Iterator<Item = &MemberName> {
        let open = self
            .members
            .iter()
            .filter(|judged| matches!(judged.outcome, Outcome::Fit(_)));
        open.map(|judged| &judged.member)
    }

    /// Returns the reason for the route's state, as a sentence.
    pub fn why(&self, kind: RouteKind) -> String {
        let open: Vec<_> = self.open().map(MemberName::as_str).collect();
        let causes = self.members.iter().filter_map(|judged| match &judged.outcome {
            Outcome::Fit(_) => None,
            Outcome::Closed(why) | Outcome::Out(why) => Some(format!("{} {why}", judged.member)),
        });
        let causes: Vec<_> = causes.collect();
        match (open.as_slice(), causes.as_slice()) {
            ([], []) => format!("no member is fit for the route {kind}: no member is known"),
            ([], causes) => format!("no member is fit for the route {kind}: {}", causes.join("; ")),
            (open, _) => format!("fit for the route {kind}: {}", open.join(", ")),
        }
    }
}
