//! Computes the time of the next request to the API, after a failure and for a quiet leader object, and the times at
//! which all watches are restarted. Pure.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::leader::observation::Lock;

/// Pauses between attempts to read the lock after a failure. The lock's watch reports whether the API has recovered.
pub const LOCK_RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// Pauses between attempts for any other object. They end when the lock's watch has recovered.
pub const OTHER_RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// Time after which a quiet watch of a leader object is checked, if the object does not exist or is not Patroni's.
const QUIET_WITHOUT_LOCK: Duration = Duration::from_secs(30);
/// Intervals of the checks while a renewal is overdue.
const OVERDUE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// Shortest time between two restarts of all watches for one overdue lock. The API server ends each watch within
/// 80 s anyway.
const RESTART_EVERY: Duration = Duration::from_secs(300);

/// The checks of one leader object.
#[derive(Debug)]
pub struct Checks {
    overdue: Backoff,
    restarted: Option<Instant>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            overdue: OVERDUE,
            restarted: None,
        }
    }
}

impl Checks {
    /// Returns the time after which the object is checked if the watch stays quiet. `changed` is true if the object has
    /// changed since the last call. Patroni renews the lock every loop_wait, which is well below half of the ttl.
    pub fn quiet(&mut self, lock: Option<&Lock>, changed: bool, random: f64) -> Duration {
        let Some(lock) = lock else {
            return QUIET_WITHOUT_LOCK.mul_f64(0.75 + random / 2.0);
        };
        if changed {
            self.overdue.reset();
            // The jitter is needed because all pgnorths received the last renewal at the same time.
            return (lock.ttl / 2).mul_f64(1.0 + random / 4.0);
        }
        self.overdue.pause_by(random)
    }

    /// Returns true if all watches should be restarted after a check that found the object unchanged: while the lock is
    /// overdue, nothing proves that the streams are alive. Returns false if this object's stream was opened less than a
    /// ttl ago, or if the watches were restarted recently (`RESTART_EVERY`).
    pub fn should_restart(&mut self, lock: Option<&Lock>, opened: Instant, now: Instant) -> bool {
        let old = lock.is_some_and(|lock| lock.ttl <= now.saturating_duration_since(opened));
        let restart = old && self.restarted.is_none_or(|restarted| restarted + RESTART_EVERY <= now);
        if restart {
            self.restarted = Some(now);
        }
        restart
    }

    /// Records a renewal: watches may be restarted when the lock is overdue the next time.
    pub const fn renewed(&mut self) {
        self.restarted = None;
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
            renewed: None,
        }
    }

    #[test]
    fn a_lock_that_is_never_renewed_is_checked_less_and_less_often() {
        let (begin, lock) = (Instant::now(), lock());
        let mut checks = Checks::default();
        let (mut at, mut opened) = (begin + checks.quiet(Some(&lock), true, 0.5), begin);
        let (mut gets, mut restarts) = (0, 0);
        while at < begin + Duration::from_secs(3_600) {
            gets += 1;
            if checks.should_restart(Some(&lock), opened, at) {
                (restarts, opened) = (restarts + 1, at);
            }
            at += checks.quiet(Some(&lock), false, 0.5);
        }
        assert!(gets < 3_600 / 5, "{gets} requests an hour");
        assert!(
            (1..=12).contains(&restarts),
            "all watches restarted {restarts} times an hour"
        );
    }
}
