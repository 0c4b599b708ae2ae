//! The pipes themselves: how many there are of each size, which are idle, and how one is made.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// The size of a worker's buffer, and the least of a pipe. Copying and splicing cost the same at some size between 64
/// and 128 KiB per message (measured).
pub(crate) const BUFFER: usize = 64 * 1024;
/// A stream through 1 MiB pipes has 1.2 times the throughput and half the CPU cost of one through 64 KiB (measured).
const LARGE: usize = 1 << 20;
/// Large pipes: 4,096 pages.
pub(crate) const MAX_LARGE: usize = 16;
/// Pipes of any size. Those beyond the large ones keep the default size, 64 KiB: 1,024 pages.
pub(crate) const MAX_PIPES: usize = 80;
/// Time after which an unused pipe is closed, and the interval of looking for such pipes.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// Time without another attempt after no pipe could be made. The cause (the limit of files, or the user's share of pipe
/// memory) does not pass in microseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// The counts and the idle pipes of a pool.
#[derive(Debug, Default)]
pub(crate) struct PoolState {
    /// Unused pipes, and when each was returned. The last one is lent first, so that those not needed stay idle.
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
    /// Counts a pipe that is about to be made. Returns true if it may be large.
    pub(crate) fn reserve(&mut self) -> Option<bool> {
        let refused = self.refused_at.is_some_and(|at| at.elapsed() < PAUSE);
        if refused || self.large + self.small >= MAX_PIPES {
            return None;
        }
        let large = self.large < MAX_LARGE;
        self.count(large);
        Some(large)
    }

    /// Takes out the pipes that were idle for [`IDLE`].
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
    /// Takes both ends of a pipe.
    pub(crate) fn new(input: OwnedFd, output: OwnedFd) -> Self {
        // It fails only for a file that is no pipe; then splice(2) says so.
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

/// Makes a pipe of `LARGE` bytes if that is wanted and allowed, or else of the default size; `None` if that is less
/// than a copy's buffer, as Linux makes them once a user has too many, or if no file can be opened.
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
