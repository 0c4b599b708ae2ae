//! One direction of a session: small messages are copied, a stream is spliced, and an EOF is passed on once everything
//! before it was delivered.

use std::io;
use std::task::Poll;

use rustix::net::Shutdown;
use serde::{Deserialize, Serialize};

use super::context::IoContext;
use super::error::{DirectionError, is_splice_refused};
use super::pipes::{BUFFER, Pipe};
use super::undelivered::Undelivered;
use crate::proxy::forward::reactor::{PolledStream, Syscalls};

/// Number of bytes after which a direction yields to other sessions of its worker: 50 to 100 µs at the speed of memory.
const QUANTUM: u64 = 2 << 20;

/// One direction. It owns the bytes that were read and not yet delivered, and has no buffer while it is idle.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Direction {
    #[serde(skip)]
    pub(crate) undelivered: Undelivered,
    /// True if the last read returned at least [`BUFFER`] bytes, so that splice(2) is tried first.
    streaming: bool,
    source_closed: bool,
    ended: bool,
    delivered: u64,
    delivered_at_check: u64,
}

/// The state of a direction after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for an event.
    Blocked,
    /// It could continue, but has used up its quantum.
    Yielded,
    /// Everything is delivered except for the EOF, which is deferred.
    EofDeferred,
    /// It has ended: the source's EOF was passed on or skipped, or the direction was abandoned.
    Ended,
}

/// The action at a source's EOF, once all bytes before it are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EofAction {
    PassOn,
    Defer,
    /// Ends without shutdown(2), which would be a wasted system call: both sockets are closed next.
    Skip,
}

impl Direction {
    /// Returns everything but the undelivered bytes.
    pub(crate) fn without_bytes(&self) -> Self {
        Self {
            undelivered: Undelivered::Nothing,
            ..*self
        }
    }

    /// Returns the number of bytes that the sink has accepted so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn source_closed(&self) -> bool {
        self.source_closed
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn has_undelivered(&self) -> bool {
        self.undelivered.has_bytes()
    }

    pub(crate) fn moved_since_check(&self) -> bool {
        self.delivered != self.delivered_at_check
    }

    /// Makes the next run retry the operations for which epoll may send no event.
    ///
    /// If bytes were delivered since the last check, the next run reads: recv(2) stops at the mark of urgent data
    /// although more bytes follow, and these would stay unread until the peer sends again. If an EOF waits until all
    /// bytes are sent, the next run checks this again.
    pub(crate) fn on_check(&mut self, source: &mut PolledStream, sink: &mut PolledStream) {
        if self.moved_since_check() {
            source.assume_ready();
        }
        self.delivered_at_check = self.delivered;
        if self.source_closed && !self.ended {
            sink.assume_ready();
        }
    }

    /// Ends the direction without passing on an EOF, because its sink accepts no more bytes or both sides have closed.
    /// Drops undelivered bytes, and reads no more.
    pub(crate) fn abandon(&mut self) {
        self.undelivered = Undelivered::Nothing;
        self.ended = true;
    }

    /// Moves the bytes that can be moved now, and yields after about [`QUANTUM`] bytes.
    pub(crate) fn run<S: Syscalls>(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext<S>,
        eof: EofAction,
    ) -> Result<Progress, DirectionError> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let start = self.delivered;
        loop {
            if self.deliver(sink, io)?.is_pending() {
                return Ok(Progress::Blocked);
            }
            if self.source_closed {
                return Ok(self.end(sink, eof));
            }
            if self.delivered - start >= QUANTUM {
                return Ok(Progress::Yielded);
            }
            if self.read(source, sink, io)?.is_pending() {
                return Ok(Progress::Blocked);
            }
        }
    }

    /// Delivers the undelivered bytes. Returns ready when none are left.
    fn deliver<S: Syscalls>(
        &mut self,
        sink: &mut PolledStream,
        io: &mut IoContext<S>,
    ) -> Result<Poll<()>, DirectionError> {
        while self.undelivered.has_bytes() {
            let Some(sent) = self.undelivered.send(sink, io)? else {
                return Ok(Poll::Pending);
            };
            self.delivered += sent as u64;
        }
        Ok(Poll::Ready(()))
    }

    /// Handles the EOF once nothing else is left to deliver.
    ///
    /// The EOF waits until the kernel has sent all bytes before it. After a FIN, pgnorth can no longer detect unsent
    /// bytes, so a slow reader would look like a host that vanished (see [`super::stall`]). Bytes that were sent reach
    /// the peer's socket, whatever happens to this socket.
    fn end(&mut self, sink: &mut PolledStream, eof: EofAction) -> Progress {
        // Less than a buffer usually fits into the peer's first window, so the kernel sends it even if the peer reads
        // nothing.
        if self.delivered >= BUFFER as u64 && !sink.has_sent_all() {
            return Progress::Blocked;
        }
        match eof {
            EofAction::Defer => return Progress::EofDeferred,
            EofAction::PassOn => {
                // A sink that is gone is reported by the other direction.
                let _already_gone = rustix::net::shutdown(&sink.stream, Shutdown::Write);
            }
            EofAction::Skip => {}
        }
        self.ended = true;
        Progress::Ended
    }

    /// Reads once. Must be called when no bytes are undelivered. Copied bytes are sent immediately, as far as the sink
    /// accepts them. Returns pending if there is nothing to read.
    fn read<S: Syscalls>(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext<S>,
    ) -> Result<Poll<()>, DirectionError> {
        if self.streaming && matches!(self.undelivered, Undelivered::Nothing) {
            // Without a pipe, the bytes are copied, which is slower.
            self.undelivered = io.take_pipe().map_or(Undelivered::Nothing, Undelivered::Pipe);
        }
        let read = match &mut self.undelivered {
            Undelivered::Pipe(pipe) => match fill(pipe, source, io) {
                Err(error) if is_splice_refused(&error) => {
                    io.traffic.pipes.on_splice_refused(&error);
                    self.undelivered = Undelivered::Nothing;
                    self.copy(source, sink, io)?
                }
                read => {
                    let read = read.map_err(DirectionError::source)?;
                    self.streaming = read.map_or(self.streaming, |read| read >= BUFFER);
                    read
                }
            },
            Undelivered::Nothing | Undelivered::Bytes(..) => self.copy(source, sink, io)?,
        };
        match read {
            Some(0) => self.source_closed = true,
            Some(_) => return Ok(Poll::Ready(())),
            None => {}
        }
        // There is nothing to read, so the empty pipe returns to the pool.
        self.undelivered = Undelivered::Nothing;
        Ok(if self.source_closed {
            Poll::Ready(())
        } else {
            Poll::Pending
        })
    }

    /// Reads once into the worker's buffer and sends once from it. Returns the number of bytes that were read.
    fn copy<S: Syscalls>(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext<S>,
    ) -> Result<Option<usize>, DirectionError> {
        let IoContext { buffer, syscalls, .. } = io;
        let read = source.read(|count| count < BUFFER, |source| syscalls.recv(source, buffer));
        let read = match read.map_err(DirectionError::source)? {
            Some(read) if read > 0 => read,
            end_or_nothing => return Ok(end_or_nothing),
        };
        self.streaming = read == BUFFER;
        let sent = sink
            .write(|sink| syscalls.send(sink, &buffer[..read]))
            .map_err(DirectionError::sink)?;
        let sent = sent.unwrap_or(0);
        self.delivered += sent as u64;
        if sent < read {
            self.undelivered = Undelivered::Bytes(buffer[sent..read].into(), 0);
        }
        Ok(Some(read))
    }
}

/// Splices once into an empty pipe. A short count does not mean that the socket is empty.
fn fill<S: Syscalls>(pipe: &mut Pipe, source: &mut PolledStream, io: &mut IoContext<S>) -> io::Result<Option<usize>> {
    debug_assert_eq!(pipe.filled, 0, "EAGAIN is the socket's only if the pipe is empty");
    let read = source.read(
        |_| false,
        |source| io.syscalls.fill(source, pipe.input(), pipe.capacity()),
    )?;
    pipe.filled = read.unwrap_or(0);
    Ok(read)
}
