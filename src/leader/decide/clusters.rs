//! Where answers of more than one cluster are heard: nobody is sent to a cluster that is not the followed one, or not known to be.

use std::fmt;

use super::Case;
use super::decision::{Decision, decision};
use crate::leader::RoutingState;
use crate::leader::reason::{NoLock, Reason};
use crate::leader::view::Stranger;

impl Case<'_> {
    /// Holds while nothing tells which cluster to follow. Nobody has a session then: the first verified leader tells it.
    pub(super) fn unclear(&self, no_lock: &NoLock) -> Option<Decision> {
        let groups = self.view.groups_not_named();
        if self.view.lock().is_none() && self.view.identity().system.is_none() && !groups.is_empty() {
            return Some(decision(RoutingState::Hold(None), Reason::CitusGroups(groups)));
        }
        let clusters: Vec<_> = self.view.unclear().iter().map(ToString::to_string).collect();
        (!clusters.is_empty()).then(|| {
            decision(
                RoutingState::Hold(None),
                Reason::SeveralClusters(clusters, no_lock.clone()),
            )
        })
    }

    /// Nobody of this cluster answers, and another one does.
    pub(super) fn only_another_answers(&self) -> Option<Reason> {
        let (place, stranger) = self.view.strangers().next()?;
        self.answering()
            .is_empty()
            .then(|| self.another_cluster(place, stranger))
    }

    pub(super) fn another_cluster(&self, place: impl fmt::Display, stranger: &Stranger) -> Reason {
        Reason::AnotherCluster(
            place.to_string(),
            stranger.identity.to_string(),
            self.view.identity().to_string(),
        )
    }
}
