//! An epoll instance whose entries are named by [`Token`]s.

use std::io;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::token::Token;

/// Events that one epoll_wait(2) returns at most.
pub(crate) const EVENT_BATCH: usize = 256;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Reports this file's events from now on, beginning with those that are pending.
    pub(crate) fn add(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, file, EventData::new_u64(token.encode()), flags)?)
    }

    /// Replaces the events that are reported; those that are pending are reported again.
    pub(crate) fn modify(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, file, EventData::new_u64(token.encode()), flags)?)
    }

    /// Ends the reports about a file that stays open; a file that is closed needs no call.
    pub(crate) fn remove(&self, file: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, file)?)
    }

    /// Replaces `events` by those that are pending; if `may_sleep`, waits for the first. A signal may leave it empty.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, may_sleep: bool) {
        let timeout = (!may_sleep).then_some(&AT_ONCE);
        events.clear();
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on pgnorth's own epoll failed: {error}"),
        }
    }
}
