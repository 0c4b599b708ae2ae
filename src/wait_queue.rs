//! The clients that wait for a leader, by how long they have: for people who ask about the oldest. It decides nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Who waits now. A client that is let through at once never takes the lock.
#[derive(Debug, Default)]
pub struct WaitQueue {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number tells clients apart that came at the same instant.
    since: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// One client's wait; dropped when it is over, whatever ends it.
#[derive(Debug)]
pub struct Wait<'waits> {
    wait_queue: &'waits WaitQueue,
    entry: (Instant, u64),
}

impl WaitQueue {
    /// A client waits that came at `since`.
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

    /// How long the client has waited that came first; `None` while nobody waits.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let (since, _) = *self.lock().since.first()?;
        Some(now.saturating_duration_since(since))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing in here can panic half-way, and it is only told of.
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
    fn the_oldest_of_those_who_still_wait() {
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
