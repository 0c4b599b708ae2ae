//! Detects stuck threads: each watched thread beats, and one without a beat for ten ticks of another thread is stuck.
//!
//! Ticks are used instead of a clock: a process that was stopped as a whole (SIGSTOP, a debugger, a frozen machine)
//! has missed ticks as well as beats, and is not stuck when it continues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Interval of beats and of ticks.
pub const EVERY: Duration = Duration::from_secs(1);
/// Number of ticks without a beat after which a thread is stuck. No loop of pgnorth occupies its thread for more
/// than some milliseconds.
const STUCK: u32 = 10;

/// The watched threads. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<Vec<WatchedThread>>>);

/// The beats of one thread. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Beat(Arc<BeatCount>);

#[derive(Debug, Default)]
struct BeatCount {
    beats: AtomicU64,
    asked: AtomicU64,
}

#[derive(Debug)]
struct WatchedThread {
    thread: String,
    beat: Beat,
    seen: u64,
    ticks_since: u32,
}

impl Liveness {
    /// Watches another thread. The returned value is for its beats.
    pub fn watch(&self, thread: impl Into<String>) -> Beat {
        let beat = Beat::default();
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(WatchedThread {
            thread: thread.into(),
            beat: beat.clone(),
            seen: 0,
            ticks_since: 0,
        });
        beat
    }

    /// Counts one tick. Must be called once per [`EVERY`], from a thread that is not watched.
    pub fn tick(&self) {
        for watched in &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let beats = watched.beat.0.beats.load(Ordering::Relaxed);
            watched.ticks_since = match beats == watched.seen {
                true => watched.ticks_since.saturating_add(1),
                false => 0,
            };
            watched.seen = beats;
        }
    }

    /// Returns the name of the first stuck thread, in the order of registration.
    pub fn stuck(&self) -> Option<String> {
        let threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = threads.iter().find(|watched| watched.ticks_since >= STUCK);
        stuck.map(|watched| watched.thread.clone())
    }
}

impl Beat {
    /// Records a beat. Costs one atomic addition.
    pub fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns true if a thread that beats only on request should be asked now. While a request is unanswered it
    /// returns false, so that requests do not pile up.
    pub fn ask(&self) -> bool {
        let beats = self.0.beats.load(Ordering::Relaxed);
        self.0.asked.swap(beats + 1, Ordering::Relaxed) <= beats
    }

    /// Beats once per [`EVERY`], for a thread that runs tasks. Never returns.
    pub async fn keep_beating(self) {
        loop {
            self.beat();
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_beats_for_ten_ticks_is_stuck_until_it_beats_again() {
        let liveness = Liveness::default();
        let (control, worker) = (liveness.watch("control"), liveness.watch("worker-0"));
        let ticks = |count: u32| (0..count).for_each(|_| liveness.tick());
        let seconds = |count: u32| {
            for _ in 0..count {
                control.beat();
                liveness.tick();
            }
        };
        worker.beat();
        seconds(STUCK);
        assert_eq!(liveness.stuck(), None);
        seconds(1);
        assert_eq!(liveness.stuck().as_deref(), Some("worker-0"));
        worker.beat();
        ticks(1);
        assert_eq!(liveness.stuck(), None);
        ticks(STUCK);
        assert_eq!(liveness.stuck().as_deref(), Some("control"), "the first of both");
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_is_not_stuck() {
        let liveness = Liveness::default();
        let control = liveness.watch("control");
        control.beat();
        // Hours may have passed: neither beats nor ticks have.
        liveness.tick();
        assert_eq!(liveness.stuck(), None);
    }

    #[test]
    fn requests_do_not_pile_up() {
        let beat = Beat::default();
        assert!(beat.ask());
        assert!(!beat.ask() && !beat.ask());
        beat.beat();
        assert!(beat.ask());
        assert!(!beat.ask());
    }
}
