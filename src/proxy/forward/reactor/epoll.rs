//! An epoll instance whose entries are identified by [`Token`]s.

use std::io;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::token::Token;

/// Maximum number of events that one epoll_wait(2) returns.
pub(crate) const EVENT_BATCH: usize = 256;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds a file. epoll also reports the events that are already pending.
    pub(crate) fn add(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, file, EventData::new_u64(token.encode()), flags)?)
    }

    /// Replaces the kinds of events that are reported; pending events are reported again.
    pub(crate) fn modify(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, file, EventData::new_u64(token.encode()), flags)?)
    }

    /// Removes a file that stays open, here or in another process. When its last copy is closed, the kernel removes it.
    pub(crate) fn remove(&self, file: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, file)?)
    }

    /// Replaces `events` with the pending events. If `may_sleep` is true, waits for the first event; a signal may end
    /// this wait without an event.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, may_sleep: bool) {
        let timeout = (!may_sleep).then_some(&AT_ONCE);
        events.clear();
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on pgnorth's own epoll failed: {error}"),
        }
    }
}
