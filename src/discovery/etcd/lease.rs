//! The lease of the leader key: the time of its last renewal, and the time of the next check. Pure.
//!
//! etcd sends no event for a renewal, but it reports the remaining time of a lease, in whole seconds. The time of a
//! renewal is therefore known only as an interval, from the earliest to the latest time that the answer allows.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::discovery::etcd::messages::LeaseTime;

/// Minimum number of checks in one ttl while the lock is renewed in time: with Patroni's defaults (ttl 30 s, loop_wait
/// 10 s) at least one per renewal.
const CHECKS_PER_TTL: u32 = 3;
/// Time before the expiry that is reserved for an unanswered check: for its deadline, and for the attempts at the other
/// endpoints.
pub(super) const RESERVE: Duration = Duration::from_secs(3);
/// Shortest pause between two checks.
const SHORTEST: Duration = Duration::from_millis(500);
/// Pauses between checks once the lease has expired and the leader key still exists, or while no leader key exists.
const EXPIRED: Backoff = Backoff::new(SHORTEST, Duration::from_secs(15));

/// A lease, as etcd reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) id: i64,
    /// Time that a renewal grants.
    pub(super) ttl: Duration,
    /// Earliest and latest possible local time of the last renewal.
    renewed: (Instant, Instant),
    /// False until etcd has reported the age of the last renewal.
    known: bool,
}

impl Lease {
    /// Returns the lease of a key that was just written or read, before its age is known.
    pub fn unknown(id: i64, ttl: Duration, at: Instant) -> Self {
        Self {
            id,
            ttl,
            renewed: (at, at),
            known: false,
        }
    }

    /// Records the answer to a request that was sent and answered at these times. Returns true if the holder has
    /// renewed the lease since the last recorded renewal, or if this is the first answer.
    ///
    /// A lease that no longer exists changes nothing: the watch reports the deletion of its keys.
    pub fn record(&mut self, time: LeaseTime, sent: Instant, answered: Instant) -> bool {
        let (Ok(left), Ok(granted)) = (u64::try_from(time.left), u64::try_from(time.granted)) else {
            return false;
        };
        if granted == 0 {
            return false;
        }
        // The number of seconds that are left is rounded down: the lease is up to a second younger than this.
        let age = Duration::from_secs(granted.saturating_sub(left));
        let earliest = sent.checked_sub(age).unwrap_or(sent);
        let latest = answered
            .checked_sub(age)
            .map_or(answered, |at| (at + Duration::from_secs(1)).min(answered));
        // Two answers about the same renewal give overlapping intervals.
        if self.known && earliest <= self.renewed.1 {
            return false;
        }
        self.ttl = Duration::from_secs(granted);
        self.renewed = (earliest, latest);
        self.known = true;
        true
    }

    /// Records a check that found a key without a lease. Such a key counts as renewed while it exists.
    pub(super) fn found(&mut self, sent: Instant) {
        self.renewed = (sent, sent);
    }

    /// Returns the earliest possible local time of the last renewal.
    pub(super) fn renewed(&self) -> Instant {
        self.renewed.0
    }

    /// Returns the earliest possible local time at which the lease expires unless it is renewed.
    pub(super) fn expiry(&self) -> Instant {
        self.renewed.0 + self.ttl
    }
}

/// The pauses between checks.
#[derive(Debug)]
pub(super) struct Pace(Backoff);

impl Default for Pace {
    fn default() -> Self {
        Self(EXPIRED)
    }
}

impl Pace {
    /// Returns the time until the next check; `random` is from 0 to 1, so that many pgnorths do not ask in step.
    pub(super) fn pause(&mut self, lease: Option<&Lease>, now: Instant, random: f64) -> Duration {
        let Some(lease) = lease.filter(|lease| now < lease.expiry()) else {
            return self.0.pause_by(random);
        };
        self.0.reset();
        let steady = (lease.ttl / CHECKS_PER_TTL).mul_f64(0.75 + random / 4.0);
        let left = lease.expiry().saturating_duration_since(now + RESERVE);
        steady.min(left / 2).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Returns etcd's answer about a lease that was renewed `age` seconds ago.
    fn time(age: f64) -> LeaseTime {
        LeaseTime {
            left: (30.0 - age).floor() as i64,
            granted: 30,
        }
    }

    #[test]
    fn the_expiry_is_never_later_than_etcds_and_at_most_a_second_earlier() {
        let begin = Instant::now();
        for tenths in 0..290_u32 {
            let age = f64::from(tenths) / 10.0;
            let now = begin + TTL;
            let renewed = now - seconds(age);
            let mut lease = Lease::unknown(7, TTL, begin);
            assert!(lease.record(time(age), now, now + seconds(0.01)));
            let early = (renewed + TTL).saturating_duration_since(lease.expiry());
            assert!(
                lease.expiry() <= renewed + TTL && early <= seconds(1.0),
                "{age}: {early:?}"
            );
        }
    }

    #[test]
    fn the_same_renewal_asked_for_twice_is_one_renewal() {
        let begin = Instant::now();
        let mut lease = Lease::unknown(7, TTL, begin);
        assert!(lease.record(time(0.0), begin, begin));
        let known = lease.clone();
        for tenths in 1..290_u32 {
            let age = f64::from(tenths) / 10.0;
            let now = begin + seconds(age);
            assert!(!lease.record(time(age), now, now + seconds(0.02)), "{age}");
        }
        assert_eq!(lease, known);
    }

    #[test]
    fn a_renewal_a_loop_later_is_noticed() {
        let begin = Instant::now();
        let mut lease = Lease::unknown(7, TTL, begin);
        assert!(lease.record(time(0.0), begin, begin));
        let now = begin + seconds(12.0);
        assert!(lease.record(time(2.0), now, now));
        assert!(begin + seconds(9.0) <= lease.renewed() && lease.renewed() <= begin + seconds(10.0));
    }

    #[test]
    fn a_lease_that_a_new_leader_of_etcd_extends_expires_later() {
        let begin = Instant::now();
        let mut lease = Lease::unknown(7, TTL, begin);
        let now = begin + seconds(25.0);
        assert!(lease.record(time(25.0), now, now));
        let extended = LeaseTime { left: 31, granted: 30 };
        assert!(lease.record(extended, now + seconds(2.0), now + seconds(2.0)));
        assert_eq!(lease.expiry(), now + seconds(2.0) + TTL);
    }

    #[test]
    fn a_lease_that_is_gone_is_no_renewal() {
        let begin = Instant::now();
        let mut lease = Lease::unknown(7, TTL, begin);
        let gone = LeaseTime { left: -1, granted: 0 };
        assert!(!lease.record(gone, begin, begin));
    }

    #[test]
    fn an_unanswered_check_leaves_time_to_ask_the_other_endpoints_before_the_expiry() {
        let now = Instant::now();
        for random in [0.0, 0.5, 1.0] {
            let mut at = now;
            let mut pace = Pace::default();
            let mut lease = Lease::unknown(7, TTL, now);
            lease.record(time(0.0), now, now);
            let mut checks = 0;
            while at < lease.expiry() - RESERVE {
                let pause = pace.pause(Some(&lease), at, random);
                assert!(at + pause <= lease.expiry() - RESERVE + SHORTEST);
                at += pause;
                checks += 1;
            }
            assert!(checks < 12, "{checks} checks of a lease that is not renewed");
        }
    }

    #[test]
    fn two_hundred_pgnorths_send_forty_to_sixty_requests_a_second() {
        let now = Instant::now();
        let pauses: f64 = (0..200)
            .map(|number| {
                let random = f64::from(number) / 200.0;
                let mut lease = Lease::unknown(7, TTL, now);
                // Renewed every 10 s: 5 s ago on average.
                lease.record(time(5.0), now, now);
                // Each check is two requests.
                2.0 / Pace::default().pause(Some(&lease), now, random).as_secs_f64()
            })
            .sum();
        assert!((40.0..60.0).contains(&pauses), "{pauses} requests a second");
    }

    #[test]
    fn a_key_that_outlives_its_lease_is_checked_less_and_less_often() {
        let now = Instant::now();
        let lease = Lease::unknown(7, TTL, now - TTL);
        let mut pace = Pace::default();
        let mut at = now;
        let mut checks = 0;
        while at < now + Duration::from_secs(3_600) {
            at += pace.pause(Some(&lease), at, 0.5);
            checks += 1;
        }
        assert!(checks < 3_600 / 5, "{checks} checks an hour");
    }
}
