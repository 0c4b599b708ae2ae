//! A stream under edge-triggered epoll, and its known readiness.

use std::io;
use std::net::TcpStream;

use rustix::event::epoll::EventFlags;

use super::epoll::Epoll;
use super::token::Token;
use super::unsent::wait_for_unsent;

/// One socket of a session. It counts as readable from an event until a read would block or empties it, and as writable
/// until a write would block.
#[derive(Debug)]
pub(crate) struct PolledStream {
    pub(crate) stream: TcpStream,
    token: Token,
    readable: bool,
    writable: bool,
    /// True after epoll has reported a FIN, a reset or another error. From then on, a read never returns EAGAIN.
    ended: bool,
    /// True if the connection is gone, or was shut down both ways.
    broken: bool,
    write_interest: WriteInterest,
}

/// The registration for writability. Most sockets never block in send(2), so a report would only wake their worker for
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteInterest {
    None,
    /// A write would have blocked, or unsent bytes were found, and epoll does not report writability yet.
    Requested,
    Registered,
}

const EDGES: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

impl PolledStream {
    /// Wraps a connected, non-blocking stream.
    pub(crate) fn new(stream: TcpStream, token: Token) -> Self {
        Self {
            stream,
            token,
            readable: false,
            writable: true,
            ended: false,
            broken: false,
            write_interest: WriteInterest::None,
        }
    }

    /// Wraps a stream whose connection is being established.
    pub(crate) fn connecting(stream: TcpStream, token: Token) -> Self {
        Self {
            writable: false,
            write_interest: WriteInterest::Registered,
            ..Self::new(stream, token)
        }
    }

    /// Adds the stream to epoll, which also reports the events that are already pending.
    pub(crate) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        let flags = match self.write_interest {
            WriteInterest::Registered => EDGES | EventFlags::OUT,
            WriteInterest::None | WriteInterest::Requested => EDGES,
        };
        epoll.add(&self.stream, self.token, flags)
    }

    /// Removes the stream, which stays open here or in another process, from epoll.
    pub(crate) fn unwatch(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.remove(&self.stream)
    }

    /// Returns `Some` once the connection is established, `None` while it is being established, and an error if it
    /// cannot be established.
    pub(crate) fn has_connected(&self) -> io::Result<Option<()>> {
        if self.ended
            && let Some(error) = self.stream.take_error()?
        {
            return Err(error);
        }
        Ok(self.writable.then_some(()))
    }

    /// Returns true if the peer has closed the connection, or if the connection is broken.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns true if the connection was reset or given up by the kernel. Also true after a shutdown in both
    /// directions.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Returns true if the kernel has sent every byte at least once, or if this cannot be determined. Otherwise, epoll
    /// reports when to call this again.
    pub(crate) fn has_sent_all(&mut self) -> bool {
        if self.writable && wait_for_unsent(&self.stream) {
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

    /// Registers for writability if that was requested. epoll reports immediately if the socket is writable again.
    pub(crate) fn update_write_interest(&mut self, epoll: &Epoll) -> io::Result<()> {
        if self.write_interest == WriteInterest::Requested {
            epoll.modify(&self.stream, self.token, EDGES | EventFlags::OUT)?;
            self.write_interest = WriteInterest::Registered;
        }
        Ok(())
    }

    /// Records an event of epoll.
    pub(crate) fn on_event(&mut self, flags: EventFlags) {
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        self.broken |= broken;
        self.ended |= broken || flags.contains(EventFlags::RDHUP);
        self.readable |= broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        self.writable |= broken || flags.contains(EventFlags::OUT);
    }

    /// Makes the next read and the next write try their system calls, whatever the known readiness is.
    pub(crate) fn assume_ready(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// Reads with `call`, unless the socket is known to be empty; returns `None` if there is nothing to read. `drains`
    /// returns true if a read of this many bytes has emptied the socket.
    ///
    /// After such a read, the next one waits for an event, which saves a system call that would return EAGAIN. But the
    /// event of a FIN may have come before, and no other event would follow, so after a FIN, reading continues to the
    /// end.
    pub(crate) fn read(
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

    /// Writes with `call`, unless the socket is known to be full; returns `None` if it is full.
    pub(crate) fn write(
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
