//! A socket under edge-triggered epoll, and what is known of its readiness.

use std::io;
use std::net::TcpStream;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::stall;

/// One socket of a pair. What is believed ready is tried; only the kernel's "would block" makes it not ready, until epoll tells of a new edge.
#[derive(Debug)]
pub(super) struct PolledStream {
    pub(super) stream: TcpStream,
    readable: bool,
    writable: bool,
    /// A FIN or a reset was seen, after which there is always something to read: the end.
    ended: bool,
    /// The connection is gone, or was shut down both ways.
    broken: bool,
    /// epoll tells when there is room again. Most sockets never lack it, and would only wake their worker when they come to it.
    write_interest: WriteInterest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteInterest {
    None,
    /// It lacked room just now, for the first time.
    Requested,
    Registered,
}

const EDGES: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

impl PolledStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: false,
            writable: true,
            ended: false,
            broken: false,
            write_interest: WriteInterest::None,
        }
    }

    /// One whose connection is under way.
    pub(super) fn connecting(stream: TcpStream) -> Self {
        Self {
            writable: false,
            write_interest: WriteInterest::Registered,
            ..Self::new(stream)
        }
    }

    /// From now on epoll tells of this socket's edges; first of what is there already.
    pub(super) fn watch(&self, epoll: &OwnedFd, token: u64) -> io::Result<()> {
        let edges = match self.write_interest {
            WriteInterest::Registered => EDGES | EventFlags::OUT,
            WriteInterest::None | WriteInterest::Requested => EDGES,
        };
        Ok(epoll::add(epoll, &self.stream, EventData::new_u64(token), edges)?)
    }

    /// Whether the connection has come about; `None` while it is under way.
    pub(super) fn has_connected(&self) -> io::Result<Option<()>> {
        if self.ended
            && let Some(error) = self.stream.take_error()?
        {
            return Err(error);
        }
        Ok(self.writable.then_some(()))
    }

    /// Whether the peer has closed or reset the connection.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it was reset, or given up by the kernel, provided that it was not shut down both ways.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether the kernel has sent everything at least once. If not, epoll tells when it has.
    pub(super) fn has_sent_all(&mut self) -> bool {
        if self.writable && stall::ask_for_unsent(&self.stream) {
            self.on_write_blocked();
        }
        self.writable
    }

    fn on_write_blocked(&mut self) {
        self.writable = false;
        if self.write_interest == WriteInterest::None {
            self.write_interest = WriteInterest::Requested;
        }
    }

    /// If it lacked room: from now on epoll tells of that, too; first of what has come meanwhile.
    pub(super) fn update_write_interest(&mut self, epoll: &OwnedFd, token: u64) -> io::Result<()> {
        if self.write_interest == WriteInterest::Requested {
            epoll::modify(epoll, &self.stream, EventData::new_u64(token), EDGES | EventFlags::OUT)?;
            self.write_interest = WriteInterest::Registered;
        }
        Ok(())
    }

    /// What epoll told.
    pub(super) fn on_event(&mut self, edges: EventFlags) {
        let broken = edges.intersects(EventFlags::HUP | EventFlags::ERR);
        self.broken |= broken;
        self.ended |= broken || edges.contains(EventFlags::RDHUP);
        self.readable |= broken || edges.intersects(EventFlags::IN | EventFlags::RDHUP);
        self.writable |= broken || edges.contains(EventFlags::OUT);
    }

    /// Tries everything anew.
    pub(super) fn assume_ready(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// Reads by `call`, if there may be something; `None` when there is nothing. `drains` tells of a count that it emptied the socket.
    ///
    /// Then the next reading waits for an edge, which spares a system call that only says EAGAIN. But an edge that came before that reading may have
    /// been a FIN's, and it would be the last: after one, reading goes on to the end.
    pub(super) fn read(
        &mut self,
        drains: impl FnOnce(usize) -> bool,
        call: impl FnOnce(&TcpStream) -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        let read = would_block(call(&self.stream))?;
        self.readable = match read {
            None => false,
            Some(count) => self.ended || !drains(count),
        };
        Ok(read)
    }

    /// Writes by `call`, if there may be room; `None` when there is none.
    pub(super) fn write(
        &mut self,
        call: impl FnOnce(&TcpStream) -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !self.writable {
            return Ok(None);
        }
        let written = would_block(call(&self.stream))?;
        if written.is_none() {
            self.on_write_blocked();
        }
        Ok(written)
    }
}

fn would_block(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
