//! The pool of pipes for splice(2): bounded, lent to directions that stream, taken back only when empty, and closed when idle.
//!
//! Linux grants all processes of an unprivileged user together 16,384 pages of pipes (fs.pipe-user-pages-soft, pipe(7)), by their capacity, whatever is in
//! them. Beyond that every new pipe has two pages. So pgnorth takes at most a third of it, and gives it back.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use tracing::warn;

use super::direction::BUFFER;

/// A stream through 1 MiB pipes has 1.2 times the throughput and half the CPU cost of one through 64 KiB (measured).
const LARGE: usize = 1 << 20;
/// Large pipes: 4,096 pages.
const MAX_LARGE: usize = 16;
/// All pipes. Those beyond the large ones keep the default size, 64 KiB: 1,024 pages.
pub(crate) const MAX_PIPES: usize = 80;
/// A pipe that was not used for so long is closed; and how often that is looked at.
pub(super) const IDLE: Duration = Duration::from_secs(5);

/// A pipe could not be had: try no other for so long. The cause (files, or the user's share of pipe memory) does not pass in microseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// The pool. Its lock is held for a push or a pop, never across a system call.
#[derive(Debug)]
pub(crate) struct Pipes {
    state: Arc<Mutex<PoolState>>,
    /// Makes one; a test's may refuse.
    make: fn(bool) -> Option<PipeFds>,
    /// splice(2) was refused: copying from now on.
    refused: AtomicBool,
}

#[derive(Debug, Default)]
struct PoolState {
    /// The one that came last is lent first: so those that are not needed stay idle. With the time when each came.
    idle_large: Vec<(Arc<PipeFds>, Instant)>,
    idle_small: Vec<(Arc<PipeFds>, Instant)>,
    /// Idle and lent together.
    large: usize,
    small: usize,
    refused_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct PipeFds {
    input: OwnedFd,
    output: OwnedFd,
    capacity: usize,
}

/// A pipe on loan. Dropped empty, it returns to the pool; with bytes in it, which belong to a session that is over, it is closed.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Arc<PipeFds>,
    /// Bytes in it now.
    pub(super) filled: usize,
    state: Arc<Mutex<PoolState>>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self::made_by(make)
    }
}

impl Pipes {
    /// A pool whose pipes come from `make`, which is told whether to make a large one.
    pub(super) fn made_by(make: fn(bool) -> Option<PipeFds>) -> Self {
        Self {
            state: Arc::default(),
            make,
            refused: AtomicBool::default(),
        }
    }

    /// The system refuses splice(2) with this error: from now on no pipe is lent, and everything is copied.
    pub(super) fn splice_is_refused(&self, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            warn!(
                %error,
                "this system refuses splice(2), so streams are copied through memory, which costs more CPU; a seccomp profile or a sandbox may be the cause"
            );
        }
    }

    /// Closes the pipes that were idle for [`IDLE`]. Tells whether there are others, which are to be looked at again after that time.
    pub(super) fn give_back(&self) -> bool {
        self.give_back_at(Instant::now())
    }

    fn give_back_at(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let old = state.take_old(now);
        let others = state.large + state.small > 0;
        // Closing is a system call.
        drop(state);
        drop(old);
        others
    }

    /// An empty pipe of at least [`BUFFER`] bytes, a large one if possible; `None` when none is to be had now.
    pub(super) fn take(&self) -> Option<Pipe> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let want_large = {
            let mut state = lock(&self.state);
            let idle = state.idle_large.pop().or_else(|| state.idle_small.pop());
            if let Some((ends, _)) = idle {
                return Some(self.lend(ends));
            }
            state.reserve()?
        };
        let made = (self.make)(want_large);
        let mut state = lock(&self.state);
        // What was reserved is now replaced by what was got.
        state.forget(want_large);
        if let Some(ends) = made {
            state.count(ends.is_large());
            drop(state);
            Some(self.lend(Arc::new(ends)))
        } else {
            state.refused_at = Some(Instant::now());
            None
        }
    }

    /// All that there are, idle and lent.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let state = lock(&self.state);
        state.large + state.small
    }

    fn lend(&self, ends: Arc<PipeFds>) -> Pipe {
        Pipe {
            ends,
            filled: 0,
            state: self.state.clone(),
        }
    }
}

impl PoolState {
    /// Counts a pipe that is about to be made; tells whether it may be large.
    fn reserve(&mut self) -> Option<bool> {
        let refused = self.refused_at.is_some_and(|at| at.elapsed() < PAUSE);
        if refused || self.large + self.small >= MAX_PIPES {
            return None;
        }
        let large = self.large < MAX_LARGE;
        self.count(large);
        Some(large)
    }

    /// Takes out what was idle for [`IDLE`].
    fn take_old(&mut self, now: Instant) -> Vec<(Arc<PipeFds>, Instant)> {
        let mut taken = Vec::new();
        for (idle, count) in [
            (&mut self.idle_large, &mut self.large),
            (&mut self.idle_small, &mut self.small),
        ] {
            let is_old = |since: Instant| now.saturating_duration_since(since) >= IDLE;
            let old = idle.iter().take_while(|(_, since)| is_old(*since)).count();
            *count -= old;
            taken.extend(idle.drain(..old));
        }
        taken
    }

    fn count(&mut self, large: bool) {
        if large {
            self.large += 1;
        } else {
            self.small += 1;
        }
    }

    fn forget(&mut self, large: bool) {
        if large {
            self.large -= 1;
        } else {
            self.small -= 1;
        }
    }
}

impl PipeFds {
    fn is_large(&self) -> bool {
        self.capacity >= LARGE
    }
}

impl Pipe {
    /// Written to.
    pub(super) fn input(&self) -> &OwnedFd {
        &self.ends.input
    }

    /// Read from.
    pub(super) fn output(&self) -> &OwnedFd {
        &self.ends.output
    }

    /// Bytes that it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.ends.capacity
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let large = self.ends.is_large();
        if self.filled > 0 {
            state.forget(large);
        } else if large {
            state.idle_large.push((self.ends.clone(), Instant::now()));
        } else {
            state.idle_small.push((self.ends.clone(), Instant::now()));
        }
    }
}

/// A thread that panicked inner cannot have left the state half-changed in a way that matters: its counts only bound memory.
fn lock(state: &Mutex<PoolState>) -> MutexGuard<'_, PoolState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pipe of `LARGE` bytes where that is wanted and allowed, or else of the default size; `None` when that is less than a copy's buffer, as Linux
/// makes them once a user has too many, or when files ran out.
pub(super) fn make(large: bool) -> Option<PipeFds> {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    if large {
        let _kept_smaller = fcntl_setpipe_size(&input, LARGE);
    }
    let capacity = fcntl_getpipe_size(&input).ok()?;
    (capacity >= BUFFER).then_some(PipeFds {
        input,
        output,
        capacity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_returns_and_a_filled_one_is_closed() {
        let pipes = Pipes::default();
        let first = pipes.take().unwrap();
        let capacity = first.capacity();
        drop(first);
        {
            let state = lock(&pipes.state);
            assert_eq!(state.idle_large.len() + state.idle_small.len(), 1);
        }
        let mut again = pipes.take().unwrap();
        assert_eq!(again.capacity(), capacity);
        again.filled = 1;
        drop(again);
        let state = lock(&pipes.state);
        assert_eq!((state.large, state.small), (0, 0));
        assert!(state.idle_large.is_empty() && state.idle_small.is_empty());
    }

    #[test]
    fn the_pool_is_bounded_and_recovers() {
        let pipes = Pipes::default();
        let lent: Vec<_> = std::iter::from_fn(|| pipes.take()).take(2 * MAX_PIPES).collect();
        assert!(!lent.is_empty() && lent.len() <= MAX_PIPES, "{}", lent.len());
        assert!(lent.iter().filter(|pipe| pipe.ends.is_large()).count() <= MAX_LARGE);
        assert!(pipes.take().is_none());
        drop(lent);
        assert!(pipes.take().is_some());
    }

    #[test]
    fn idle_pipes_are_given_back() {
        let pipes = Pipes::default();
        let (kept, idle) = (pipes.take().unwrap(), pipes.take().unwrap());
        drop(idle);
        let now = Instant::now();
        assert!(pipes.give_back_at(now), "there are two");
        assert_eq!(pipes.count(), 2);
        assert!(pipes.give_back_at(now + IDLE), "one is lent");
        assert_eq!(pipes.count(), 1);
        drop(kept);
        assert!(!pipes.give_back_at(now + 2 * IDLE), "there is none");
        assert_eq!(pipes.count(), 0);
    }

    #[test]
    fn a_process_takes_at_most_a_third_of_what_its_user_is_granted() {
        let pipes = Pipes::default();
        let lent: Vec<_> = std::iter::from_fn(|| pipes.take()).take(MAX_PIPES).collect();
        let pages: usize = lent.iter().map(|pipe| pipe.capacity() / 4096).sum();
        assert!(pages <= 16_384 / 3, "{pages}");
    }
}
