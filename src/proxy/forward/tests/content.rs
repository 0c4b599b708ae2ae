//! Random numbers, and content that its receiver can check without a copy.

use std::sync::LazyLock;

/// A prime, so that content repeats at no power of two.
const LENGTH: usize = 1_048_573;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(7);
    // Twice, so that every piece of up to LENGTH bytes is contiguous.
    let once: Vec<u8> = (0..LENGTH).map(|_| random.next().to_le_bytes()[0]).collect();
    [once.clone(), once].concat()
});

/// A stream of bytes that its seed defines.
#[derive(Clone, Copy)]
pub(super) struct Content {
    at: usize,
}

impl Content {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            at: (seed % LENGTH as u64) as usize,
        }
    }

    /// Returns the next `length` bytes, which must be fewer than a mebibyte.
    pub(super) fn next(&mut self, length: usize) -> &'static [u8] {
        let piece = &PATTERN[self.at..self.at + length];
        self.at = (self.at + length) % LENGTH;
        piece
    }
}

/// SplitMix64: random enough, and the same everywhere for one seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns true once in `times` calls on average.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
