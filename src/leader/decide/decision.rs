//! A decision, and the effect of an operator's hold on it.

use std::time::Instant;

use crate::leader::observation::OperatorHold;
use crate::leader::reason::Reason;
use crate::leader::{RoutingState, Server};

/// The outcome of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The routing state: the destination of new clients, and the leader whose sessions are kept.
    pub state: RoutingState,
    /// The reason that applies without an operator's hold.
    pub reason: Reason,
    /// The number of the rule that decided, in docs/concepts/deciding.md; 0 before the first decision.
    pub rule: usize,
    /// The operator's hold, if one is active.
    pub held: Option<HoldEffect>,
    /// Time of the next decision without a new observation; `None` if the passage of time changes nothing.
    pub recheck_at: Option<Instant>,
}

/// The effect of an operator's hold on a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldEffect {
    /// The operator's hold.
    pub hold: OperatorHold,
    /// True if the hold is the only obstacle: without it, clients would go to the leader.
    pub alone: bool,
}

pub(super) fn decision(state: RoutingState, reason: Reason) -> Decision {
    Decision {
        state,
        reason,
        rule: 0,
        held: None,
        recheck_at: None,
    }
}

impl Decision {
    /// Returns the decision before any source has answered.
    pub fn starting() -> Self {
        decision(RoutingState::Hold(None), Reason::Starting)
    }

    /// Returns the leader that new clients go to, or would go to if no operator held them.
    pub fn primary(&self) -> Option<&Server> {
        match &self.held {
            Some(held) if held.alone => self.state.leader(),
            _ => self.state.open_to(),
        }
    }

    /// Returns the reason as a sentence, including the operator's hold.
    pub fn why(&self) -> String {
        match &self.held {
            None => self.reason.to_string(),
            Some(HoldEffect { hold, alone: true }) => format!("{hold}; {}", self.reason),
            Some(HoldEffect { hold, alone: false }) => format!("{}; also {hold}", self.reason),
        }
    }

    /// Applies an operator's hold: new clients wait. The hold affects neither the choice of the leader, nor sessions,
    /// nor a fence.
    pub(super) fn held_by(self, hold: Option<&OperatorHold>, now: Instant) -> Self {
        let Some(hold) = hold.filter(|hold| now < hold.ends) else {
            return self;
        };
        let (state, alone) = match self.state {
            RoutingState::Route(leader) => (RoutingState::Hold(Some(leader)), true),
            state => (state, false),
        };
        let held = Some(HoldEffect { hold: *hold, alone });
        Self { state, held, ..self }.recheck_by(hold.ends)
    }

    /// Adds an instant at which the passage of time may change the decision.
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
