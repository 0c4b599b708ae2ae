//! Further slots of the primary, for routes with a target other than `--target`: PostgreSQL instead of the pooler, or
//! vice versa.
//!
//! There is one decision about the primary. Each of these slots gets it in the same step as the slot of `--target`,
//! with another address of the same member. A slot never leads to a different member, and is open only if the decision
//! is to route.

use std::sync::Arc;

use tracing::{info, warn};

use crate::leader::view::View;
use crate::leader::{RoutingState, Server, UnknownAddress};
use crate::route::Upstream;
use crate::slot::{RouteSlot, SessionsToEnd};

/// A further slot of the primary.
#[derive(Debug)]
pub struct PrimarySlot {
    /// Server of the primary that sessions of this slot connect to.
    pub upstream: Upstream,
    /// Slot in which the decision is published.
    pub slot: Arc<RouteSlot>,
    /// Reason why the address is unknown; `None` if it is known. New clients wait while it is unknown.
    problem: Option<UnknownAddress>,
    /// The problem that was logged last.
    logged: Option<UnknownAddress>,
}

impl PrimarySlot {
    /// Returns a slot in which nothing is published yet.
    pub fn new(upstream: Upstream, slot: Arc<RouteSlot>) -> Self {
        Self {
            upstream,
            slot,
            problem: None,
            logged: None,
        }
    }

    /// Publishes the decision, unless the slot already has it. If the slot no longer keeps the former server, because
    /// the leader or its address has changed or there is no leader, the caller must end the sessions to that server
    /// through the returned [`SessionsToEnd`].
    #[must_use = "sessions to the former server stay open until this ends them"]
    pub fn follow(&mut self, view: &View, decided: &RoutingState, reason: &str) -> Option<SessionsToEnd> {
        let snapshot = self.slot.snapshot();
        let before = snapshot.state();
        let state = match at(view, self.upstream, decided, before.leader()) {
            Ok(state) => {
                self.problem = None;
                state
            }
            Err(cause) => {
                self.problem = Some(cause);
                RoutingState::Hold(None)
            }
        };
        let reason = match &self.problem {
            None => reason.to_owned(),
            Some(cause) => format!(
                "{reason}; the leader's address for target={} is unknown: {cause}",
                self.upstream
            ),
        };
        (state != before || reason != snapshot.reason)
            .then(|| self.slot.succeed(state, reason))
            .flatten()
    }

    /// Logs a problem when it begins or changes, and its end once a leader has an address.
    pub fn log_problem(&mut self) {
        let is_solved = || self.slot.snapshot().state().leader().is_some();
        if self.problem == self.logged || self.problem.is_none() && !is_solved() {
            return;
        }
        let target = self.upstream;
        match &self.problem {
            Some(cause) => {
                warn!(
                    %target, %cause,
                    "the primary's address for this route target is unknown: clients of routes with this target wait"
                )
            }
            None => info!(%target, "the primary's address for this route target is known again"),
        }
        self.logged.clone_from(&self.problem);
    }
}

/// Returns the decision for sessions that connect to this server of the leader. `current` is the leader of the present
/// sessions: if its address has become unknown, its last address stays in use, as in `decide`.
///
/// # Errors
/// Returns the reason why the address is unknown.
fn at(
    view: &View,
    upstream: Upstream,
    decided: &RoutingState,
    current: Option<&Server>,
) -> Result<RoutingState, UnknownAddress> {
    let Some(leader) = decided.leader() else {
        return Ok(decided.clone());
    };
    let current = current.filter(|current| current.member == leader.member);
    let address = match (view.address_of(&leader.member, upstream), current) {
        (Ok(address), _) => address,
        // An unknown address is not evidence against the server at the last one.
        (Err(_), Some(current)) => current.address.clone(),
        (Err(cause), None) => return Err(cause),
    };
    let server = Server {
        address,
        ..leader.clone()
    };
    Ok(match decided {
        RoutingState::Route(_) => RoutingState::Route(server),
        RoutingState::Hold(_) | RoutingState::Fence => RoutingState::Hold(Some(server)),
    })
}

#[cfg(test)]
mod tests;
