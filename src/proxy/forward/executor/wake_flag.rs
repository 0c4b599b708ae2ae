//! The flag through which other threads wake a worker. The worker sleeps only if the flag is not set.

use super::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
/// The worker is in epoll_wait(2), or about to be.
const ASLEEP: u8 = 1;
/// The flag was set, and the worker has not cleared it yet.
const SET: u8 = 2;

/// The flag. It has no lock, because a worker reads it for each message that it forwards.
#[derive(Debug)]
pub(crate) struct WakeFlag(AtomicU8);

impl WakeFlag {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// Sets the flag. Callers first provide the work: a message for the worker, or a task that is ready. Returns true
    /// if the worker sleeps and has to be woken by its eventfd.
    pub(crate) fn set(&self) -> bool {
        self.0.swap(SET, Ordering::AcqRel) == ASLEEP
    }

    /// Clears the flag, and marks the worker as awake. Returns true if the flag was set since the last call. The worker
    /// then sees all work that was provided before the flag was set.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == SET
    }

    /// Marks the worker as asleep, unless the flag is set. Returns true if the worker may sleep until it is woken.
    pub(crate) fn try_sleep(&self) -> bool {
        self.0
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
