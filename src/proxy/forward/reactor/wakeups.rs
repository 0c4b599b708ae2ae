//! The two files that wake a worker without a socket: an eventfd, which any thread may signal, and a timer.
//!
//! Neither is ever read: edge-triggered epoll reports a new signal or expiry even if the file is still readable.

use std::io;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::epoll::Epoll;
use super::token::Token;

const EDGES: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// The eventfd through which any thread wakes the worker.
#[derive(Debug)]
pub(crate) struct Eventfd(OwnedFd);

/// A one-shot timer.
///
/// A timeout of epoll_wait(2) would do the same, but the kernel would set up a timer for every wait, which costs 1 µs
/// per message.
#[derive(Debug)]
pub(crate) struct Timerfd(OwnedFd);

impl Eventfd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.add(&self.0, Token::Eventfd, EDGES)
    }

    pub(crate) fn signal(&self) {
        // This fails only if the counter is full, after 2^64 signals.
        let _signalled = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Timerfd {
    pub(crate) fn new(epoll: &Epoll) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll.add(&timer, Token::Timer, EDGES)?;
        Ok(Self(timer))
    }

    /// Sets the timer to fire once after this time, which must not be zero. Replaces the time that was set before.
    pub(crate) fn set(&self, after: Duration) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(after).unwrap_or_default(),
        };
        if let Err(error) = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once) {
            panic!("timerfd_settime(2) on pgnorth's own timer failed: {error}");
        }
    }
}
