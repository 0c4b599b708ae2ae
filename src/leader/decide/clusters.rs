//! Evaluates answers of several clusters. Clients are sent only to the cluster that is followed.

use super::inputs::Inputs;
use crate::leader::reason::{NoLock, Reason};
use crate::leader::view::{AnswerOrigin, ForeignCluster};

impl Inputs<'_> {
    /// Returns the reason if the cluster to follow is unknown. No sessions exist then, because the first verified
    /// leader determines the cluster.
    pub(super) fn unclear(&self, no_lock: &NoLock) -> Option<Reason> {
        let groups = self.view.groups_not_named();
        if self.view.lock().is_none() && self.view.identity().system.is_none() && !groups.is_empty() {
            return Some(Reason::CitusGroups { groups });
        }
        let clusters = self.view.unclear().to_vec();
        (!clusters.is_empty()).then(|| Reason::SeveralClusters {
            clusters,
            no_lock: no_lock.clone(),
        })
    }

    /// Returns the reason if no member of the followed cluster answers, but another cluster does.
    pub(super) fn only_another_answers(&self) -> Option<Reason> {
        let (origin, foreign_cluster) = self.view.foreign_clusters().next()?;
        let nobody_answers = self.answering().is_empty();
        nobody_answers.then(|| self.another_cluster(origin.clone(), foreign_cluster))
    }

    pub(super) fn another_cluster(&self, origin: AnswerOrigin, foreign_cluster: &ForeignCluster) -> Reason {
        Reason::AnotherCluster {
            origin,
            theirs: foreign_cluster.identity.clone(),
            ours: self.view.identity(),
        }
    }
}
