//! When the API is asked again: after a failure, for a leader object that is quiet, and when that is a reason to open all watches anew. Pure.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::leader::observation::Lock;

/// Pauses between two tries while the API does not answer, for the lock, which tells whether the API is back.
pub const LOCK_RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// The same for any other object: it waits no longer than until the lock's watch has recovered.
pub const OTHER_RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// How long a leader object that does not exist, or is not Patroni's, may be quiet before its watch is checked.
const QUIET_WITHOUT_LOCK: Duration = Duration::from_secs(30);
/// An overdue renewal is asked for at such intervals.
const OVERDUE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// Watches are opened anew for an overdue lock once; the API server ends each watch within some 80 s anyway.
const DOUBTS: Duration = Duration::from_secs(300);

/// The checks of one leader object.
#[derive(Debug)]
pub struct Checks {
    overdue: Backoff,
    doubted: Option<Instant>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            overdue: OVERDUE,
            doubted: None,
        }
    }
}

impl Checks {
    /// How long the object may be quiet before it is asked for. It has `changed`, or is as it was. Patroni renews every loop_wait, well within half of ttl.
    pub fn quiet(&mut self, lock: Option<&Lock>, changed: bool, random: f64) -> Duration {
        let Some(lock) = lock else {
            return QUIET_WITHOUT_LOCK.mul_f64(0.75 + random / 2.0);
        };
        if changed {
            self.overdue.reset();
            // Every pgnorth heard of the last renewal at the same time.
            return (lock.ttl / 2).mul_f64(1.0 + random / 4.0);
        }
        self.overdue.pause_by(random)
    }

    /// Whether the streams may be dead, after a check that found the object as it was. An overdue lock tells nothing of its stream, dead or alive. A stream that is
    /// younger than the lease was opened for that very reason.
    pub fn doubt(&mut self, lock: Option<&Lock>, opened: Instant, now: Instant) -> bool {
        let old = lock.is_some_and(|lock| lock.ttl <= now.saturating_duration_since(opened));
        let doubts = old && self.doubted.is_none_or(|doubted| doubted + DOUBTS <= now);
        if doubts {
            self.doubted = Some(now);
        }
        doubts
    }

    /// The lock is renewed again: the next time that it is overdue is another one.
    pub const fn renewed(&mut self) {
        self.doubted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock {
            holder: Some("a".into()),
            ttl: Duration::from_secs(20),
            renewal: Default::default(),
            written: None,
        }
    }

    #[test]
    fn a_lock_that_nobody_renews_costs_less_and_less() {
        let (begin, lock) = (Instant::now(), lock());
        let mut checks = Checks::default();
        let (mut at, mut opened) = (begin + checks.quiet(Some(&lock), true, 0.5), begin);
        let (mut gets, mut doubts) = (0, 0);
        while at < begin + Duration::from_secs(3_600) {
            gets += 1;
            if checks.doubt(Some(&lock), opened, at) {
                (doubts, opened) = (doubts + 1, at);
            }
            at += checks.quiet(Some(&lock), false, 0.5);
        }
        assert!(gets < 3_600 / 5, "{gets} requests an hour");
        assert!((1..=12).contains(&doubts), "all watches {doubts} times an hour");
    }
}
