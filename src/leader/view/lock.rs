//! The lock and its observed changes: the holder, the time since which it has held the lock, and the expiry.

use std::time::{Duration, Instant};

use crate::leader::observation::Lock;
use crate::leader::view::renewals::Renewals;

/// Index of `renewTime` in [`Lock::renewal`].
const RENEW_TIME: usize = 1;

/// The lock, and the local times of its changes.
#[derive(Clone, Debug)]
pub struct LockView {
    /// The lock as read from its object.
    pub lock: Lock,
    /// Time of the last change: a renewal, a new holder or a release. The ttl counts from this time. If the change
    /// arrived later than usual, this time is earlier than its arrival. Outages of the Kubernetes API are added.
    pub renewed: Instant,
    /// Time at which the lock changed to this holder; `None` if it had this holder when it was first seen.
    pub held_since: Option<Instant>,
    /// Time of the last observed change or appearance; `None` if the lock has not changed since it was first seen.
    pub(super) changed: Option<Instant>,
    /// True if an existing lock was seen to change.
    pub(super) seen_to_change: bool,
    /// Start of this holder's observed renewals, with no gap of a ttl or longer between them.
    renewing_since: Option<Instant>,
    /// The newest renewals by this holder.
    renewals: Renewals,
}

impl LockView {
    pub(super) fn new(lock: Lock, at: Instant, changed: Option<Instant>) -> Self {
        let mut renewals = Renewals::default();
        if let Some(written) = lock.written {
            renewals.delay_of(written, at, lock.ttl);
        }
        Self {
            renewed: lock.renewed.unwrap_or(at),
            lock,
            held_since: changed,
            changed,
            seen_to_change: false,
            renewing_since: changed,
            renewals,
        }
    }

    /// Postpones the expiry by the length of an outage of the API, in which the holder may have been unable to renew
    /// the lock. Has no effect if the source knows the time of the renewal, because it then knows the expiry as well.
    pub(super) fn after_outage(mut self, outage: Duration) -> Self {
        if self.lock.renewed.is_none() {
            self.renewed += outage;
        }
        self
    }

    /// Records a renewal by the same holder.
    pub(super) fn renewed_by(mut self, lock: Lock, at: Instant, changed: Option<Instant>) -> Self {
        let delay = lock
            .written
            .map(|written| self.renewals.delay_of(written, at, lock.ttl));
        let renewed = lock.renewed.or_else(|| at.checked_sub(delay.unwrap_or_default()));
        // A source that knows the time of a renewal may have observed the renewal much later.
        let changed = changed.map(|changed| lock.renewed.unwrap_or(changed));
        let unbroken = self.changed.is_some_and(|last| changed.unwrap_or(at) < last + lock.ttl);
        Self {
            renewing_since: self.renewing_since.filter(|_| unbroken).or(changed),
            lock,
            renewed: renewed.unwrap_or(at),
            changed,
            ..self
        }
    }

    /// Returns true if this lock is newer than the other one. If both were seen to change, the local times of the
    /// changes are compared. Otherwise, an object left over from a migration may just have appeared, so the values of
    /// `renewTime` are compared, which come from the clocks of the same members.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        match (self.seen_to_change, other.seen_to_change) {
            (true, true) => self.changed > other.changed,
            _ => self.lock.renewal[RENEW_TIME] > other.lock.renewal[RENEW_TIME],
        }
    }

    /// Returns the time at which the lock expires.
    pub fn lock_expiry(&self) -> Instant {
        self.renewed + self.lock.ttl
    }

    /// Returns the start of the ttl before the last change, if the holder has renewed the lock throughout that ttl
    /// without a gap.
    pub fn renewed_throughout(&self) -> Option<Instant> {
        let begin = self.changed?.checked_sub(self.lock.ttl)?;
        self.renewing_since.is_some_and(|since| since <= begin).then_some(begin)
    }
}
