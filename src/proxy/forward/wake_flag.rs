//! A worker's wake_flag: anybody rings it, and the worker sleeps only when it was not rung.

use super::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
/// In epoll_wait(2), or about to be.
const ASLEEP: u8 = 1;
/// Rung, and not answered yet.
const SET: u8 = 2;

/// One atomic and no lock, since a worker looks at it for each message that it forwards.
#[derive(Debug)]
pub(super) struct WakeFlag(AtomicU8);

impl WakeFlag {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// To be called after that was left which the worker is to find. Tells whether the worker sleeps, and must be woken.
    pub(super) fn set(&self) -> bool {
        self.0.swap(SET, Ordering::AcqRel) == ASLEEP
    }

    /// By the worker, which is awake from now on: whether it was rung since it last asked. What was left before the ring is to be seen then.
    pub(super) fn take(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == SET
    }

    /// By the worker: whether it may sleep until it is woken.
    pub(super) fn try_sleep(&self) -> bool {
        self.0
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
