//! Assigns a slot to each route: the primary's slot, the primary's slot for another target, or a separate slot.

use std::sync::Arc;

use tokio::sync::watch;

use super::{AppState, STARTING};
use crate::discovery::primaries::PrimarySlot;
use crate::discovery::routes::FollowedRoute;
use crate::leader::fit::Fitness;
use crate::route::{Route, RouteKind, Upstream};
use crate::slot::RouteSlot;

/// The slots that discovery updates in addition to the primary's.
#[derive(Default)]
pub(super) struct Routes {
    /// Slots of routes to the primary with a target other than `--target`, one for each target.
    pub(super) primaries: Vec<PrimarySlot>,
    /// Routes of every kind except `primary`.
    pub(super) followed: Vec<FollowedRoute>,
}

impl Routes {
    /// Adds a route whose sessions go to `upstream`. Returns its slot and, unless it leads only to the primary, the
    /// fitness of its members.
    pub(super) fn add(
        &mut self,
        route: &Route,
        upstream: Upstream,
        state: &AppState,
        of_primary: Upstream,
    ) -> (Arc<RouteSlot>, Option<watch::Receiver<Arc<Fitness>>>) {
        if route.conditions.kind == RouteKind::Primary {
            return (self.of_primary(upstream, state, of_primary), None);
        }
        let followed = FollowedRoute {
            listen: route.listen.to_string(),
            port: route.listen.port(),
            conditions: route.conditions.clone(),
            upstream,
            slot: Arc::new(state.slot.beside(STARTING)),
            fitness: watch::Sender::default(),
            log_limiter: state.log_limiter.clone(),
        };
        let (slot, fitness) = (followed.slot.clone(), followed.fitness.subscribe());
        self.followed.push(followed);
        (slot, Some(fitness))
    }

    fn of_primary(&mut self, upstream: Upstream, state: &AppState, default: Upstream) -> Arc<RouteSlot> {
        if upstream == default {
            return state.slot.clone();
        }
        if let Some(known) = self.primaries.iter().find(|known| known.upstream == upstream) {
            return known.slot.clone();
        }
        let slot = Arc::new(state.slot.beside(STARTING));
        self.primaries.push(PrimarySlot::new(upstream, slot.clone()));
        slot
    }
}
