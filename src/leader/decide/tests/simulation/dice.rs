//! Reproducible random numbers: all random values in a run derive from one seed.

use super::patroni::Ms;

/// A SplitMix64 generator.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from `low` to `high`, both included. The two ends are frequent, because errors are most likely
    /// there.
    pub(super) fn between(&mut self, low: Ms, high: Ms) -> Ms {
        match self.roll() % 8 {
            0 => low,
            1 => high,
            _ => low + self.roll() % (high - low + 1),
        }
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.roll().is_multiple_of(times)
    }
}
