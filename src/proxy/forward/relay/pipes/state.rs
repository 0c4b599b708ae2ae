//! The state of the pool: the counts of pipes of each size, and the idle pipes. Also creates pipes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// Size of a worker's buffer, and minimum capacity of a pipe. Copying and splicing cost the same at some size between
/// 64 and 128 KiB per message (measured).
pub(crate) const BUFFER: usize = 64 * 1024;
/// Capacity of a large pipe. A stream through 1 MiB pipes has 1.2 times the throughput and half the CPU cost of a
/// stream through 64 KiB pipes (measured).
const LARGE: usize = 1 << 20;
/// Maximum number of large pipes; together they have 4,096 pages.
pub(crate) const MAX_LARGE: usize = 16;
/// Maximum number of pipes of any size that the pool creates. The small ones have the default capacity, 64 KiB, and
/// together 1,024 pages.
pub(crate) const MAX_PIPES: usize = 80;
/// Minimum time for which a pipe is unused before it is closed, and the interval of the search for such pipes.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// Pause after a pipe could not be created. The cause (the limit of files, or the user's share of pipe memory) usually
/// lasts longer than a few microseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// The counts and the idle pipes of a pool.
#[derive(Debug, Default)]
pub(crate) struct PoolState {
    /// Unused pipes, and the times of their return. The last one is lent first, so that surplus pipes stay idle.
    pub(crate) idle_large: Vec<(Arc<PipeFds>, Instant)>,
    pub(crate) idle_small: Vec<(Arc<PipeFds>, Instant)>,
    /// Count of idle and lent pipes together.
    pub(crate) large: usize,
    pub(crate) small: usize,
    pub(crate) refused_at: Option<Instant>,
}

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct PipeFds {
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) capacity: usize,
}

impl PoolState {
    /// Counts a pipe that is about to be created. Returns true if it may be large, and `None` if no pipe may be created
    /// now.
    pub(crate) fn reserve(&mut self) -> Option<bool> {
        let refused = self.refused_at.is_some_and(|at| at.elapsed() < PAUSE);
        if refused || self.large + self.small >= MAX_PIPES {
            return None;
        }
        let large = self.large < MAX_LARGE;
        self.count(large);
        Some(large)
    }

    /// Removes and returns the pipes that were idle for [`IDLE`].
    pub(crate) fn take_old(&mut self, now: Instant) -> Vec<(Arc<PipeFds>, Instant)> {
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

    pub(crate) fn count(&mut self, large: bool) {
        if large {
            self.large += 1;
        } else {
            self.small += 1;
        }
    }

    pub(crate) fn forget(&mut self, large: bool) {
        if large {
            self.large -= 1;
        } else {
            self.small -= 1;
        }
    }
}

impl PipeFds {
    /// Wraps both ends of a pipe.
    pub(crate) fn new(input: OwnedFd, output: OwnedFd) -> Self {
        // This fails only for a file that is not a pipe; splice(2) then reports it.
        let capacity = fcntl_getpipe_size(&input).unwrap_or(BUFFER);
        Self {
            input,
            output,
            capacity,
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        self.capacity >= LARGE
    }
}

/// Creates a pipe of `LARGE` bytes if `large` is true and the system allows it, else one of the default capacity.
/// Returns `None` if no file can be opened, or if the pipe is smaller than [`BUFFER`]: Linux creates such pipes once a
/// user has too many.
pub(crate) fn make(large: bool) -> Option<PipeFds> {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    if large {
        let _stays_small = fcntl_setpipe_size(&input, LARGE);
    }
    let capacity = fcntl_getpipe_size(&input).ok()?;
    (capacity >= BUFFER).then_some(PipeFds {
        input,
        output,
        capacity,
    })
}
