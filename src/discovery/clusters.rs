//! Tells of other clusters that answer where members of this one should, and of another system identifier that took the place of a former one.

use std::collections::BTreeSet;

use tracing::{Level, info, warn};

use crate::leader::identity::Identity;
use crate::leader::view::{Place, View};
use crate::log_limiter::LogLimiter;

/// What was told of clusters.
#[derive(Default)]
pub(super) struct Clusters {
    strangers: BTreeSet<(Place, Identity)>,
    system: Option<String>,
}

impl Clusters {
    /// Tells each change once; where two clusters answer in turn, as behind one address, how often is told every 30 s.
    pub(super) fn tell(&mut self, view: &View, log_limiter: &LogLimiter) {
        let ours = view.identity();
        let strangers = view.strangers();
        let found: BTreeSet<_> = strangers
            .map(|(place, stranger)| (place.clone(), stranger.identity.clone()))
            .collect();
        for (place, theirs) in found.difference(&self.strangers) {
            if log_limiter.should_log(&format!("another cluster answers for {place}")) {
                warn!(
                    "another cluster answers for {place}: {theirs}; pgnorth follows {ours}, and this answer counts for nothing"
                );
            }
        }
        if found.is_empty()
            && !self.strangers.is_empty()
            && log_limiter.should_log_at(Level::INFO, "no other cluster answers any more")
        {
            info!("no other cluster answers any more; pgnorth follows {ours}");
        }
        self.strangers = found;
        if let (Some(former), Some(system)) = (view.former_system(), &ours.system)
            && self.system.as_ref() != Some(system)
        {
            warn!(
                "the cluster was initialised anew: its system identifier was {former:?} and is {system:?} now; pgnorth follows it"
            );
        }
        self.system = ours.system;
    }
}
