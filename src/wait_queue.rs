//! The clients that wait for a leader or for a dial permit, ordered by the beginning of their wait. For display only.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The clients that wait now. A client that does not have to wait never takes the lock.
#[derive(Debug, Default)]
pub struct WaitQueue {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number distinguishes clients that began to wait at the same instant.
    since: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// One client's wait; it ends when this is dropped.
#[derive(Debug)]
pub struct Wait<'waits> {
    wait_queue: &'waits WaitQueue,
    entry: (Instant, u64),
}

impl WaitQueue {
    /// Adds a client that has been waiting since `since`.
    pub fn begin(&self, since: Instant) -> Wait<'_> {
        let mut entries = self.lock();
        let entry = (since, entries.next);
        entries.next += 1;
        entries.since.insert(entry);
        drop(entries);
        Wait {
            wait_queue: self,
            entry,
        }
    }

    /// Returns the wait time of the longest-waiting client; `None` if none waits.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let (since, _) = *self.lock().since.first()?;
        Some(now.saturating_duration_since(since))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No code under the lock can panic half-way, and the entries are only displayed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.wait_queue.lock().since.remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_clients_that_still_wait() {
        let wait_queue = WaitQueue::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(wait_queue.oldest(at(9)), None);
        let second = wait_queue.begin(at(2));
        let first = wait_queue.begin(at(1));
        let as_old = wait_queue.begin(at(1));
        assert_eq!(wait_queue.oldest(at(9)), Some(Duration::from_secs(8)));
        drop(first);
        assert_eq!(
            wait_queue.oldest(at(9)),
            Some(Duration::from_secs(8)),
            "another came with it"
        );
        drop(as_old);
        assert_eq!(wait_queue.oldest(at(9)), Some(Duration::from_secs(7)));
        drop(second);
        assert_eq!(wait_queue.oldest(at(9)), None);
    }
}
