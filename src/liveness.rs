//! Detects stuck threads: each watched thread records heartbeats. A thread is stuck if it records none during ten ticks
//! of another thread.
//!
//! Ticks are used instead of a clock: a process that was stopped as a whole (SIGSTOP, a debugger, a frozen machine)
//! has missed ticks as well as heartbeats, so it is not considered stuck when it continues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Interval of heartbeats and of ticks.
pub const EVERY: Duration = Duration::from_secs(1);
/// Number of ticks without a heartbeat after which a thread is stuck. No loop of pgnorth occupies its thread for more
/// than a few milliseconds.
const STUCK: u32 = 10;

/// The watched threads. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<Vec<WatchedThread>>>);

/// The heartbeats of one thread. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<HeartbeatCount>);

#[derive(Debug, Default)]
struct HeartbeatCount {
    recorded: AtomicU64,
    requested: AtomicU64,
}

#[derive(Debug)]
struct WatchedThread {
    thread: String,
    heartbeat: Heartbeat,
    seen: u64,
    ticks_since: u32,
}

impl Liveness {
    /// Adds a thread, which must record its heartbeats through the returned value.
    pub fn watch(&self, thread: impl Into<String>) -> Heartbeat {
        let heartbeat = Heartbeat::default();
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(WatchedThread {
            thread: thread.into(),
            heartbeat: heartbeat.clone(),
            seen: 0,
            ticks_since: 0,
        });
        heartbeat
    }

    /// Counts one tick. Must be called once per [`EVERY`], from a thread that is not watched.
    pub fn tick(&self) {
        for watched in &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let recorded = watched.heartbeat.0.recorded.load(Ordering::Relaxed);
            watched.ticks_since = match recorded == watched.seen {
                true => watched.ticks_since.saturating_add(1),
                false => 0,
            };
            watched.seen = recorded;
        }
    }

    /// Returns the name of the first stuck thread, in the order of registration.
    pub fn stuck(&self) -> Option<String> {
        let threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = threads.iter().find(|watched| watched.ticks_since >= STUCK);
        stuck.map(|watched| watched.thread.clone())
    }
}

impl Heartbeat {
    /// Records a heartbeat. Costs one atomic addition.
    pub fn record(&self) {
        self.0.recorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns true if a thread that records heartbeats only on request should receive a request now. Returns false
    /// while a request is unanswered, so that requests do not pile up.
    pub fn request(&self) -> bool {
        let recorded = self.0.recorded.load(Ordering::Relaxed);
        self.0.requested.swap(recorded + 1, Ordering::Relaxed) <= recorded
    }

    /// Records a heartbeat once per [`EVERY`], for a thread that runs tasks. Never returns.
    pub async fn keep_recording(self) {
        loop {
            self.record();
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_heartbeats_for_ten_ticks_is_stuck_until_the_next_heartbeat() {
        let liveness = Liveness::default();
        let (control, worker) = (liveness.watch("control"), liveness.watch("worker-0"));
        let ticks = |count: u32| (0..count).for_each(|_| liveness.tick());
        let seconds = |count: u32| {
            for _ in 0..count {
                control.record();
                liveness.tick();
            }
        };
        worker.record();
        seconds(STUCK);
        assert_eq!(liveness.stuck(), None);
        seconds(1);
        assert_eq!(liveness.stuck().as_deref(), Some("worker-0"));
        worker.record();
        ticks(1);
        assert_eq!(liveness.stuck(), None);
        ticks(STUCK);
        assert_eq!(liveness.stuck().as_deref(), Some("control"), "the first of both");
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_is_not_stuck() {
        let liveness = Liveness::default();
        let control = liveness.watch("control");
        control.record();
        // Hours may have passed, without heartbeats and without ticks.
        liveness.tick();
        assert_eq!(liveness.stuck(), None);
    }

    #[test]
    fn requests_do_not_pile_up() {
        let heartbeat = Heartbeat::default();
        assert!(heartbeat.request());
        assert!(!heartbeat.request() && !heartbeat.request());
        heartbeat.record();
        assert!(heartbeat.request());
        assert!(!heartbeat.request());
    }
}
