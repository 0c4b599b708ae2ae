//! pgnorth in the simulation. Drives view, decide, slot and plan as `discovery` and its prober do.

use std::time::{Duration, Instant};

use super::super::stories::policy;
use super::super::{Decision, decide};
use super::patroni::{EVERYBODY, MemberIndex, Ms, NAMES};
use crate::leader::observation::{Claim, Observation};
use crate::leader::probing::pacing::Pacer;
use crate::leader::probing::{Probe, plan, witnesses};
use crate::leader::view::View;
use crate::leader::{MemberName, RoutingState, Server};
use crate::slot::{RouteSlot, Target};

pub(super) struct Observer {
    begin: Instant,
    pub(super) view: View,
    pub(super) slot: RouteSlot,
    pub(super) decision: Decision,
    /// Time of the decision.
    pub(super) decided: Ms,
    /// One session for each snapshot that admits clients.
    pub(super) sessions: Vec<Target>,
    held_since: Option<Instant>,
    pacer: Pacer,
}

impl Observer {
    pub(super) fn new() -> Self {
        let begin = Instant::now();
        Self {
            begin,
            view: View::default(),
            slot: RouteSlot::new("starting"),
            decision: Decision::starting(),
            decided: 0,
            sessions: Vec::new(),
            held_since: Some(begin),
            pacer: Pacer::default(),
        }
    }

    pub(super) fn instant(&self, now: Ms) -> Instant {
        self.begin + Duration::from_millis(now)
    }

    pub(super) fn millis(&self, at: Instant) -> Ms {
        // Rounds up. If it rounded down, the wake-up would come just before the instant, when nothing is due yet, and
        // the same wake-up would be planned endlessly.
        at.saturating_duration_since(self.begin).as_nanos().div_ceil(1_000_000) as Ms
    }

    /// Returns the leader whose sessions are kept.
    pub(super) fn leader(&self) -> Option<MemberIndex> {
        self.slot.snapshot().state().leader().map(place)
    }

    /// Returns the leader that new clients may go to.
    pub(super) fn open_to(&self) -> Option<MemberIndex> {
        self.slot.snapshot().state().open_to().map(place)
    }

    pub(super) fn hear(&mut self, claim: Claim, now: Ms) {
        let at = self.instant(now);
        self.view.record(Observation { at, claim });
        self.decide(now);
    }

    pub(super) fn decide(&mut self, now: Ms) {
        let decision = self.decision_at(now);
        self.decided = now;
        let now = self.instant(now);
        if decision.state != self.decision.state || decision.reason != self.decision.reason {
            match &decision.state {
                RoutingState::Route(_) => self.held_since = None,
                RoutingState::Hold(_) | RoutingState::Fence => _ = self.held_since.get_or_insert(now),
            }
            self.slot.publish(decision.state.clone(), decision.reason.to_string());
            self.sessions.retain(|session| session.ending().is_none());
            self.sessions.extend(self.slot.snapshot().target(&[]));
        }
        self.decision = decision;
    }

    /// Returns the decision at that time if no claim arrives before.
    pub(super) fn decision_at(&self, now: Ms) -> Decision {
        let current = self.slot.snapshot().state().leader().cloned();
        decide(&self.view, current.as_ref(), self.instant(now), &policy())
    }

    /// Returns the requests that are due, and the time of the next request, as `Prober::ask_the_due` does. Each
    /// interval has its greatest possible length.
    pub(super) fn ask_the_due(&mut self, now: Ms) -> (Vec<Request>, Option<Ms>) {
        let at = self.instant(now);
        let probes = plan(&self.view, &self.decision.state, self.held_since, at);
        let request = |member: &MemberName, path| Request {
            who: index_of(member),
            path,
        };
        let probes = probes
            .iter()
            .map(|Probe { member, urgency }| (request(member, "/primary"), *urgency));
        let witnesses = witnesses(&self.view, &self.decision.state, at);
        let witnesses = witnesses
            .iter()
            .map(|Probe { member, urgency }| (request(member, "/cluster"), *urgency));
        let all: Vec<_> = probes.chain(witnesses).collect();
        let keys: Vec<_> = all.iter().map(|(request, urgency)| (request.key(), *urgency)).collect();
        let keys = keys.iter().map(|(key, urgency)| (key.as_str(), *urgency));
        let (due, next) = self.pacer.due(keys, at, || 0.0);
        (
            due.into_iter().map(|place| all[place].0).collect(),
            next.map(|next| self.millis(next)),
        )
    }

    /// Records an answer, or the end of a request without an answer. Returns false if the answer no longer counts.
    pub(super) fn answered(&mut self, request: Request, answered: bool, now: Ms) -> bool {
        let now = self.instant(now);
        self.pacer.ended(&request.key(), answered, now)
    }
}

/// A request to a member's REST API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) who: MemberIndex,
    pub(super) path: &'static str,
}

impl Request {
    fn key(self) -> String {
        format!("{}{}", NAMES[self.who], self.path)
    }
}

pub(super) fn place(leader: &Server) -> MemberIndex {
    index_of(&leader.member)
}

fn index_of(member: &MemberName) -> MemberIndex {
    EVERYBODY
        .into_iter()
        .find(|who| *member == NAMES[*who])
        .expect("only these three exist")
}
