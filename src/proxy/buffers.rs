//! The limit of bytes that each session may queue in the kernel. The sum over all sessions is bounded, whatever the
//! order in which they open and close.
//!
//! Of the open sessions, the j-th oldest opened when at least j were open (all older ones still are), so its share is
//! at most BUDGET/j. The sum over N sessions is at most BUDGET * (1 + ln N), plus the minimum shares. A share never
//! changes: a receive buffer that shrinks drops bytes that its window has allowed, and the leader retransmits them only
//! seconds later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory of a stalled session as a multiple of its limit: Linux doubles SO_RCVBUF, and bytes up to the limit are
/// unsent to the client.
const QUEUED: usize = 3;
/// Limit above which no limit is set, because it would have no effect: by default Linux lets a receive buffer grow only
/// to twice this size (net.ipv4.tcp_rmem; newer kernels allow more).
const AUTOTUNED: usize = 3 << 20;
/// Minimum limit. A lower limit would reduce throughput more than it saves memory.
const LEAST: usize = 64 << 10;

/// The budget, and the number of sessions that share it now.
#[derive(Debug)]
pub(super) struct Buffers {
    budget: usize,
    open: AtomicUsize,
}

/// One session's share of the budget, held while it dials or has a connection to the leader.
#[derive(Debug)]
pub(super) struct Share {
    buffers: Arc<Buffers>,
    limit: Option<u32>,
}

impl Buffers {
    /// Creates a budget of this many bytes; zero leaves the size of every buffer to Linux.
    pub(super) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            open: AtomicUsize::new(0),
        })
    }

    /// Returns the share of a resumed session, whose sockets already have this limit.
    pub(super) fn resumed(self: &Arc<Self>, limit: Option<u32>) -> Share {
        self.open.fetch_add(1, Ordering::Relaxed);
        Share {
            buffers: self.clone(),
            limit,
        }
    }

    /// Returns the share of a session that is about to dial.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        Share {
            buffers: self.clone(),
            limit: limit_of(open, self.budget),
        }
    }
}

impl Share {
    /// Returns SO_RCVBUF towards the leader and TCP_NOTSENT_LOWAT, in bytes; `None` leaves both to Linux.
    pub(super) fn limit(&self) -> Option<u32> {
        self.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.buffers.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the limit of a session that is one of `open`, itself included; `None` leaves its buffers to Linux.
fn limit_of(open: usize, budget: usize) -> Option<u32> {
    if budget == 0 {
        return None;
    }
    let limit = (budget / (QUEUED * open.max(1))).max(LEAST);
    if limit > AUTOTUNED {
        return None;
    }
    u32::try_from(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const BUDGET: usize = 40 * MIB;

    #[test]
    fn the_first_sessions_are_left_to_linux_and_the_later_ones_get_less() {
        for (open, limit) in [
            (1, None),
            (4, None),
            (5, Some(40 * MIB / 15)),
            (100, Some(40 * MIB / 300)),
            (213, Some(40 * MIB / 639)),
            (214, Some(LEAST)),
            (1_000_000, Some(LEAST)),
        ] {
            let limit = limit.map(|limit| u32::try_from(limit).unwrap());
            assert_eq!(limit_of(open, BUDGET), limit, "{open} open");
        }
        assert_eq!(limit_of(1, 0), None);
        assert_eq!(limit_of(10_000, 0), None);
    }

    /// Returns the maximum number of bytes that the session may occupy.
    fn most(share: &Share) -> usize {
        QUEUED * share.limit().map_or(AUTOTUNED, |limit| limit as usize)
    }

    #[test]
    fn the_sum_is_bounded_in_whatever_order_sessions_open_and_close() {
        for seed in 1..=50_u64 {
            let buffers = Buffers::new(BUDGET);
            let mut open: Vec<Share> = Vec::new();
            let mut state = seed;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            // Waves of up to a thousand, so that many sessions close that opened when few were open, and vice versa.
            for _ in 0..20 {
                let target = random(1000);
                for _ in 0..2000 {
                    let opens = random(100) < if open.len() < target { 90 } else { 40 };
                    if opens {
                        open.push(buffers.share());
                    } else if !open.is_empty() {
                        // The oldest, the youngest, or any.
                        let which = [0, open.len() - 1, random(open.len())][random(3)];
                        open.remove(which);
                    }
                    #[expect(clippy::cast_precision_loss, reason = "a bound need not be exact")]
                    let bound =
                        BUDGET as f64 * (1.0 + (open.len().max(1) as f64).ln()) + (open.len() * QUEUED * LEAST) as f64;
                    let sum: usize = open.iter().map(most).sum();
                    #[expect(clippy::cast_precision_loss, reason = "a bound need not be exact")]
                    let sum = sum as f64;
                    assert!(
                        sum <= bound,
                        "seed {seed}: {sum} of {bound} for {} sessions",
                        open.len()
                    );
                }
            }
            drop(open);
            assert_eq!(buffers.open.load(Ordering::Relaxed), 0);
        }
    }
}
