//! Estimates how late a renewal arrives, without comparing clocks: the time between two renewals by the holder's clock
//! is compared with the time between their arrivals by the local clock.
//!
//! A delay that all renewals have cannot be distinguished from the difference between the clocks, and is not counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// Number of the newest renewals that are compared: enough for one of them to have arrived quickly, and few enough to
/// soon forget a clock that was set back.
const COMPARED: usize = 8;
/// Longest delay that counts, because a holder's clock that was set back a little looks like a delay. Patroni keeps ttl
/// at or above loop_wait plus twice retry_timeout, and retry_timeout at 3 s or more, so a holder that renews in time
/// has at least 3 s of its ttl left.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Divisor of the ttl for the longest delay that counts. It matters only for a ttl below Patroni's present minimum of
/// 20 s.
const MAX_DELAY_OF_TTL: u32 = 20;

/// The newest renewals by one holder, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals(VecDeque<Renewal>);

#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// Time of the renewal by the holder's clock.
    written: SystemTime,
    /// Time of its arrival by the local clock.
    seen: Instant,
}

impl Renewals {
    /// Records a renewal, and returns by how much its arrival took longer than the fastest of the newest arrivals, up
    /// to [`MAX_DELAY`] and a fraction of the ttl.
    pub(super) fn delay_of(&mut self, written: SystemTime, seen: Instant, ttl: Duration) -> Duration {
        if self.0.back().is_some_and(|newest| written < newest.written) {
            // The holder's clock was set back, so its earlier times can no longer be compared.
            self.0.clear();
        }
        if self.0.len() == COMPARED {
            self.0.pop_front();
        }
        self.0.push_back(Renewal { written, seen });
        let later_than = |other: &Renewal| {
            let written_after = written.duration_since(other.written).unwrap_or_default();
            let seen_after = seen.saturating_duration_since(other.seen);
            seen_after.saturating_sub(written_after)
        };
        let delay = self.0.iter().map(later_than).max().unwrap_or_default();
        delay.min(MAX_DELAY).min(ttl / MAX_DELAY_OF_TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    /// Returns the delays of renewals. Each renewal has its time by the holder's and by the local clock, in
    /// milliseconds.
    fn delays(ttl: Duration, renewals: &[(u64, u64)]) -> Vec<u128> {
        let (clock, begin) = (SystemTime::UNIX_EPOCH, Instant::now());
        let mut known = Renewals::default();
        let mut delay_of = |(written, seen): &(u64, u64)| {
            let (written, seen) = (
                clock + Duration::from_millis(*written),
                begin + Duration::from_millis(*seen),
            );
            known.delay_of(written, seen, ttl).as_millis()
        };
        renewals.iter().map(&mut delay_of).collect()
    }

    #[test]
    fn a_late_renewals_delay_is_relative_to_the_fastest() {
        let written_and_seen = [(90_000, 40), (93_000, 3_010), (96_000, 6_710), (99_000, 9_010)];
        assert_eq!(delays(TTL, &written_and_seen), [0, 0, 700, 0]);
    }

    #[test]
    fn the_first_renewals_by_a_holder_are_compared_with_those_so_far() {
        assert_eq!(delays(TTL, &[(0, 900), (3_000, 3_000), (6_000, 6_300)]), [0, 0, 300]);
    }

    #[test]
    fn no_renewal_counts_as_later_than_a_second_or_a_twentieth_of_a_short_ttl() {
        assert_eq!(delays(TTL, &[(0, 0), (3_000, 9_000)]), [0, 1_000]);
        assert_eq!(delays(TTL / 5, &[(0, 0), (500, 1_500)]), [0, 200]);
    }

    #[test]
    fn a_clock_that_is_set_is_soon_forgotten() {
        let renewals = |step: i64| -> Vec<_> {
            let stepped = |turn: u64| if turn < 3 { 0 } else { step };
            let written = |turn: u64| (60_000 + turn * 3_000).saturating_add_signed(stepped(turn));
            (0..15).map(|turn| (written(turn), turn * 3_000)).collect()
        };
        assert_eq!(delays(TTL, &renewals(2_000)), [0; 15], "set forward");
        assert_eq!(
            delays(TTL, &renewals(-30_000)),
            [0; 15],
            "set back by more than a renewal"
        );
        let late: Vec<_> = (0..15)
            .map(|turn| if (3..10).contains(&turn) { 600 } else { 0 })
            .collect();
        assert_eq!(delays(TTL, &renewals(-600)), late, "set back by less");
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_are_no_trouble() {
        let far = Duration::from_secs(250_000_000_000);
        let mut known = Renewals::default();
        for written in [
            SystemTime::UNIX_EPOCH + far,
            SystemTime::UNIX_EPOCH - far,
            SystemTime::UNIX_EPOCH + far,
        ] {
            assert_eq!(known.delay_of(written, Instant::now(), TTL), Duration::ZERO);
        }
    }
}
