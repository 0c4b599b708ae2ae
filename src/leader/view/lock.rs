//! The lock as it was seen to change: whose it is, since when, and until when its lease lasts.

use std::time::{Duration, Instant};

use crate::leader::observation::Lock;
use crate::leader::view::renewals::Renewals;

/// The place of `renewTime` in [`Lock::renewal`].
const RENEW_TIME: usize = 1;

/// The lock, and the local times that matter about it.
#[derive(Clone, Debug)]
pub struct LockView {
    /// What the object says.
    pub lock: Lock,
    /// When it last changed: renewed, moved or released. The lease counts from here: not from when the news came, if
    /// that took longer than lately. Time in which the API was silent does not count.
    pub renewed: Instant,
    /// Since when it names this holder; `None` if it did when it was first seen.
    pub held_since: Option<Instant>,
    /// When it was last seen to change, or to appear; `None` while it stands as it was first heard of.
    pub(super) changed: Option<Instant>,
    /// It was seen to change while it was there.
    pub(super) seen_to_change: bool,
    /// Since when it has been seen to change by this holder's hand, again and again, never later than a ttl after the
    /// last time.
    renewing_since: Option<Instant>,
    /// By this holder.
    renewals: Renewals,
}

impl LockView {
    pub(super) fn new(lock: Lock, at: Instant, changed: Option<Instant>) -> Self {
        let mut renewals = Renewals::default();
        if let Some(written) = lock.written {
            renewals.delay_of(written, at, lock.ttl);
        }
        Self {
            lock,
            renewed: at,
            held_since: changed,
            changed,
            seen_to_change: false,
            renewing_since: changed,
            renewals,
        }
    }

    /// Nobody could renew while the API was silent: that time does not count.
    pub(super) fn after_silence(mut self, silent_for: Duration) -> Self {
        self.renewed += silent_for;
        self
    }

    /// By the same holder.
    pub(super) fn renewed_by(mut self, lock: Lock, at: Instant, changed: Option<Instant>) -> Self {
        let delay = lock
            .written
            .map(|written| self.renewals.delay_of(written, at, lock.ttl));
        let unbroken = self.changed.is_some_and(|last| at < last + lock.ttl);
        Self {
            renewing_since: self.renewing_since.filter(|_| unbroken).or(changed),
            lock,
            renewed: at.checked_sub(delay.unwrap_or_default()).unwrap_or(at),
            changed,
            ..self
        }
    }

    /// Of two that were both seen to change, the one that changed last. Else the renewTime that Patroni wrote tells:
    /// both come from the same members' clocks, and an object that is left over from before may appear at any time.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        match (self.seen_to_change, other.seen_to_change) {
            (true, true) => self.changed > other.changed,
            _ => self.lock.renewal[RENEW_TIME] > other.lock.renewal[RENEW_TIME],
        }
    }

    /// When the lock expires.
    pub fn lock_expiry(&self) -> Instant {
        self.renewed + self.lock.ttl
    }

    /// Where its holder has been seen to renew it for a whole ttl without a gap: when that ttl began, the newest one.
    pub fn renewed_throughout(&self) -> Option<Instant> {
        let begin = self.changed?.checked_sub(self.lock.ttl)?;
        self.renewing_since.is_some_and(|since| since <= begin).then_some(begin)
    }
}
