//! The pool of pipes for splice(2). Their number is limited. They are lent to directions that stream, returned only
//! when empty, and closed when idle.
//!
//! Linux allows all processes of an unprivileged user together 16,384 pages of pipe capacity (fs.pipe-user-pages-soft,
//! pipe(7)), even if the pipes are empty. Beyond that limit, every new pipe has two pages. All pgnorths on a node
//! usually have the same user, so each uses at most a third of the limit, and closes pipes that it does not need.

mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::warn;

pub(crate) use state::PipeFds;
use state::PoolState;
pub(crate) use state::{BUFFER, IDLE, MAX_PIPES, make};

/// The pool. Its lock is never held across a system call.
#[derive(Debug)]
pub(crate) struct Pipes {
    state: Arc<Mutex<PoolState>>,
    /// Creates a pipe; tests replace it with a function that fails.
    make: fn(bool) -> Option<PipeFds>,
    /// True after splice(2) was refused. From then on, everything is copied.
    refused: AtomicBool,
}

/// A lent pipe. When it is dropped, it returns to the pool if it is empty. Otherwise it is closed, because its bytes
/// must not reach another session.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Arc<PipeFds>,
    /// Number of bytes in it now.
    pub(crate) filled: usize,
    state: Arc<Mutex<PoolState>>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self::made_by(make)
    }
}

impl Pipes {
    /// Creates a pool that calls `make` to create a pipe; the argument is true for a large pipe.
    pub(crate) fn made_by(make: fn(bool) -> Option<PipeFds>) -> Self {
        Self {
            state: Arc::default(),
            make,
            refused: AtomicBool::default(),
        }
    }

    /// Stops lending pipes, so that everything is copied, because the system has refused splice(2) with `error`.
    pub(crate) fn on_splice_refused(&self, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            warn!(
                %error,
                "the system refuses splice(2): streams are copied through memory, which costs more CPU; check for a \
                 seccomp profile or a sandbox that forbids splice"
            );
        }
    }

    /// Closes the pipes that were idle for [`IDLE`]. Returns true if other pipes remain, so that this must be called
    /// again after that time.
    pub(crate) fn close_idle(&self) -> bool {
        self.close_idle_at(Instant::now())
    }

    fn close_idle_at(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let old = state.take_old(now);
        let others = state.large + state.small > 0;
        // Closing is a system call.
        drop(state);
        drop(old);
        others
    }

    /// Lends an empty pipe of at least [`BUFFER`] bytes: an idle one, preferably a large one, or else a new one.
    /// Returns `None` if no pipe is available now.
    pub(crate) fn take(&self) -> Option<Pipe> {
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
        // The reservation is replaced by the created pipe, which may be small although a large one was reserved.
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

    /// Takes over a pipe of another process, with this many bytes in it. It is counted even beyond the limit, because
    /// it exists already.
    pub(crate) fn adopt(&self, ends: PipeFds, filled: usize) -> Pipe {
        lock(&self.state).count(ends.is_large());
        let mut pipe = self.lend(Arc::new(ends));
        pipe.filled = filled;
        pipe
    }

    /// Returns the count of idle and lent pipes together.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
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

impl Pipe {
    /// Returns the end that is written to.
    pub(crate) fn input(&self) -> &OwnedFd {
        &self.ends.input
    }

    /// Returns the end that is read from.
    pub(crate) fn output(&self) -> &OwnedFd {
        &self.ends.output
    }

    /// Returns the number of bytes that it can hold.
    pub(crate) fn capacity(&self) -> usize {
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

/// Locks the state, even if a thread panicked with the lock: its counts only bound memory.
fn lock(state: &Mutex<PoolState>) -> MutexGuard<'_, PoolState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
