//! An outage of a source: the number of its faults, and the recovery from it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time without a fault, after an answer, that counts as a recovery. A shorter time would not suffice: a list may
/// succeed before each watch that fails.
pub(super) const RECOVERED_AFTER: Duration = Duration::from_secs(5);

/// Faults of one source, since its last recovery.
#[derive(Default)]
pub(super) struct Outage {
    faults: u64,
    /// Time of the first answer since the last fault.
    answered: Option<Instant>,
}

impl Outage {
    /// Counts a fault, and returns the number of faults since the last recovery.
    pub(super) fn count(&mut self) -> u64 {
        self.faults += 1;
        self.answered = None;
        self.faults
    }

    /// Records an answer.
    pub(super) fn answered(&mut self) {
        self.answered.get_or_insert_with(Instant::now);
    }

    /// Waits for the recovery: no fault for [`RECOVERED_AFTER`] after an answer. Returns the number of faults before
    /// it. Waits forever if there was no fault, or no answer since the last fault. Cancel-safe.
    pub(super) async fn recovered(&mut self) -> u64 {
        match self.answered.filter(|_| self.faults > 0) {
            Some(answered) => sleep_until(answered + RECOVERED_AFTER).await,
            None => std::future::pending().await,
        }
        std::mem::take(&mut self.faults)
    }
}
