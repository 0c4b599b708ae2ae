//! Computes pauses between attempts: they tend to grow from failure to failure, and differ from process to process.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Pauses with decorrelated jitter: each is a random time between `first` and three times the previous pause, but never
/// longer than `longest`. Processes that fail together therefore retry at different times.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    last: Duration,
}

impl Backoff {
    /// Returns pauses from `first` to `longest`. The first pause is at most three times `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            last: first,
        }
    }

    /// Returns the next pause.
    pub fn pause(&mut self) -> Duration {
        self.pause_by(random())
    }

    /// Returns the next pause for a random number from 0 to 1.
    pub fn pause_by(&mut self, random: f64) -> Duration {
        let most = (3 * self.last).min(self.longest).max(self.first);
        self.last = self.first + (most - self.first).mul_f64(random);
        self.last
    }

    /// Records a success: the next pause is at most three times `first` again.
    pub const fn reset(&mut self) {
        self.last = self.first;
    }
}

/// Returns a random number from 0 to 1. It is derived from the keys of a `RandomState`, which suffices for jitter.
pub fn random() -> f64 {
    const BITS: u32 = 32;
    let bits = RandomState::new().build_hasher().finish() >> (u64::BITS - BITS);
    bits as f64 / 2_f64.powi(BITS.cast_signed())
}

/// Returns `pause`, shortened or lengthened by up to a quarter.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + random() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_grow_to_the_longest_and_never_fall_below_the_first() {
        let mut slowest = Backoff::new(FIRST, LONGEST);
        let pauses: Vec<_> = (0..5).map(|_| slowest.pause_by(1.0).as_millis()).collect();
        assert_eq!(pauses, [750, 2_250, 5_000, 5_000, 5_000]);
        slowest.reset();
        assert_eq!(slowest.pause_by(1.0).as_millis(), 750);
        assert_eq!(slowest.pause_by(0.0), FIRST);
    }

    #[test]
    fn processes_that_fail_together_retry_at_different_times() {
        let mut pauses: Vec<_> = (0..200)
            .map(|_| {
                let mut backoff = Backoff::new(FIRST, LONGEST);
                (0..6).map(|_| backoff.pause()).sum::<Duration>()
            })
            .collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 190, "{} different times", pauses.len());
        let spread = *pauses.last().unwrap() - pauses[0];
        assert!(spread > LONGEST, "{spread:?}");
    }

    #[test]
    fn random_numbers_fill_their_range() {
        let numbers: Vec<_> = (0..1_000).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        for tenth in 0..10 {
            let low = f64::from(tenth) / 10.0;
            let found = numbers
                .iter()
                .filter(|number| (low..low + 0.1).contains(*number))
                .count();
            assert!(found > 30, "{found} of 1000 from {low}");
        }
    }
}
