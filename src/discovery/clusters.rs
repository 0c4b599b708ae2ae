//! Logs answers from other clusters at this cluster's addresses, and a new system identifier of this cluster.

use std::collections::BTreeSet;

use tracing::{Level, info, warn};

use crate::leader::identity::Identity;
use crate::leader::view::{AnswerOrigin, View};
use crate::log_limiter::LogLimiter;

/// The other clusters and the system identifier that were logged last.
#[derive(Default)]
pub(super) struct Clusters {
    foreign_clusters: BTreeSet<(AnswerOrigin, Identity)>,
    system: Option<String>,
}

impl Clusters {
    /// Logs each change once. If two clusters answer in turn, for example behind one address, a count is logged
    /// every 30 s.
    pub(super) fn log_changes(&mut self, view: &View, log_limiter: &LogLimiter) {
        let ours = view.identity();
        let foreign_clusters = view.foreign_clusters();
        let found: BTreeSet<_> = foreign_clusters
            .map(|(origin, foreign_cluster)| (origin.clone(), foreign_cluster.identity.clone()))
            .collect();
        for (origin, theirs) in found.difference(&self.foreign_clusters) {
            if log_limiter.should_log(&format!("another cluster answers for {origin}")) {
                warn!("another cluster answers for {origin}: {theirs}; pgnorth follows {ours} and ignores this answer");
            }
        }
        if found.is_empty()
            && !self.foreign_clusters.is_empty()
            && log_limiter.should_log_at(Level::INFO, "no other cluster answers now")
        {
            info!("no other cluster answers now; pgnorth follows {ours}");
        }
        self.foreign_clusters = found;
        if let (Some(former), Some(system)) = (view.former_system(), &ours.system)
            && self.system.as_ref() != Some(system)
        {
            warn!(
                "the cluster was initialised again: its system identifier was {former:?} and is now {system:?}; \
                 pgnorth follows the new one"
            );
        }
        self.system = ours.system;
    }
}
