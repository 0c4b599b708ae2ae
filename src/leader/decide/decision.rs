//! A decision, and what an operator's hold makes of it.

use std::time::Instant;

use crate::leader::observation::OperatorHold;
use crate::leader::reason::Reason;
use crate::leader::{Leader, RoutingState};

/// What to do, why, and when time alone may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub state: RoutingState,
    /// Why; as it would be without an operator's hold.
    pub reason: Reason,
    /// The operator's hold, while there is one.
    pub held: Option<Held>,
    /// When to decide again although nothing new was heard; `None` where time changes nothing.
    pub recheck_at: Option<Instant>,
}

/// What an operator's hold makes of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The hold.
    pub hold: OperatorHold,
    /// Nothing else stands in the way: at its end clients go to the leader.
    pub alone: bool,
}

pub(super) fn decision(state: RoutingState, reason: Reason) -> Decision {
    Decision {
        state,
        reason,
        held: None,
        recheck_at: None,
    }
}

impl Decision {
    /// The leader that new clients go to, or would if no operator held them.
    pub fn primary(&self) -> Option<&Leader> {
        match &self.held {
            Some(held) if held.alone => self.state.leader(),
            _ => self.state.open_to(),
        }
    }

    /// Why, as a sentence for people that tells of an operator's hold too.
    pub fn why(&self) -> String {
        match &self.held {
            None => self.reason.to_string(),
            Some(Held { hold, alone: true }) => format!("{hold}; {}", self.reason),
            Some(Held { hold, alone: false }) => format!("{}; also {hold}", self.reason),
        }
    }

    /// An operator's hold keeps new clients from a leader that they could go to, and changes nothing else: who leads, whose sessions live and what is fenced
    /// is decided as ever.
    pub(super) fn held_by(self, hold: Option<&OperatorHold>, now: Instant) -> Self {
        let Some(hold) = hold.filter(|hold| now < hold.ends) else {
            return self;
        };
        let (state, alone) = match self.state {
            RoutingState::Route(leader) => (RoutingState::Hold(Some(leader)), true),
            state => (state, false),
        };
        let held = Some(Held { hold: *hold, alone });
        Self { state, held, ..self }.recheck_by(hold.ends)
    }

    pub(super) fn recheck_by(self, at: Instant) -> Self {
        self.recheck_at(Some(at))
    }

    pub(super) fn recheck_at(self, at: Option<Instant>) -> Self {
        let recheck_at = match (self.recheck_at, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { recheck_at, ..self }
    }
}
