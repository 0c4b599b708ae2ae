//! The synchronous standbys according to Patroni's own record in the DCS.

use std::time::{Duration, Instant};

use super::View;
use crate::leader::MemberName;
use crate::leader::observation::Standby;
use crate::leader::synchronous::SyncState;

/// The newest record, and the time since which it cannot be read.
#[derive(Clone, Debug)]
pub(super) struct SyncView {
    pub(super) state: SyncState,
    /// `None` while the record can be read.
    pub(super) unread_since: Option<Instant>,
}

impl View {
    /// Returns true if Patroni's record of the synchronous standbys can currently be read from the DCS.
    pub fn reads_standbys(&self) -> bool {
        self.standbys_unread_since() == Some(None)
    }

    /// Returns a replica's kind of standby according to Patroni's record; `None` if the record has been unreadable for
    /// `grace` or longer, or if the record, the settings or the lock were never read.
    pub fn recorded_standby(&self, member: &MemberName, grace: Duration, now: Instant) -> Option<Standby> {
        let objects = self.objects(self.kind()?);
        let record = &objects.synchronous.as_ref()?.state;
        let settings = objects.settings.as_ref()?;
        let unread_since = self.standbys_unread_since()?;
        if unread_since.is_some_and(|since| since + grace <= now) {
            return None;
        }
        let kind = settings.synchronous.filter(|_| !settings.standby_cluster);
        Some(kind.filter(|_| record.contains(member)).unwrap_or(Standby::Async))
    }

    /// Returns `Some(Some(since))` if the record has been unreadable since `since`, `Some(None)` if it can be read, and
    /// `None` if the record, the settings or the lock were never read.
    pub fn standbys_unread_since(&self) -> Option<Option<Instant>> {
        let objects = self.objects(self.kind()?);
        objects.settings.as_ref()?;
        let record = objects.synchronous.as_ref()?;
        let outage = objects.unreachable.as_ref().map(|failure| failure.at);
        Some(record.unread_since.into_iter().chain(outage).min())
    }

    pub(super) fn record_standbys(known: &mut Option<SyncView>, newest: Option<SyncState>, at: Instant) {
        match (newest, known) {
            (Some(state), known) => {
                *known = Some(SyncView {
                    state,
                    unread_since: None,
                });
            }
            (None, Some(known)) => _ = known.unread_since.get_or_insert(at),
            (None, None) => {}
        }
    }
}
