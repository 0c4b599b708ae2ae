//! One direction of a session: small messages are copied, a stream is spliced, an EOF is passed on once everything before it was delivered.

use std::io;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::pipes::Pipe;
use super::polled_stream::PolledStream;
use super::worker::IoContext;

/// The size of a worker's buffer. Copying and splicing cost the same somewhere between 64 and 128 KiB a message (measured).
pub(super) const BUFFER: usize = 64 * 1024;
/// A direction gives way to other sessions of its worker after so many bytes: some 50 to 100 µs at the speed of memory.
const QUANTUM: u64 = 2 << 20;

/// One direction. It owns what was read and not yet delivered, and nothing while idle.
#[derive(Debug, Default)]
pub(super) struct Direction {
    undelivered: Undelivered,
    /// The last reading filled a buffer: try splice(2) first.
    streaming: bool,
    source_closed: bool,
    ended: bool,
    moved: u64,
    moved_at_check: u64,
}

/// What was read and is not yet delivered.
#[derive(Debug, Default)]
enum Undelivered {
    #[default]
    Empty,
    /// The tail that the sink did not take; the number is how much of it went since.
    Bytes(Box<[u8]>, usize),
    /// In a pipe; possibly none at the moment.
    Pipe(Pipe),
}

/// Why a direction cannot go on.
#[derive(Debug)]
pub(super) struct DirectionError {
    pub(super) failed: FailedEnd,
    pub(super) error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailedEnd {
    Source,
    Sink,
    /// Neither: memory ran out.
    Own,
}

/// How far a direction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for an edge.
    Blocked,
    /// It could go on, but others are to have their turn.
    Yielded,
    /// Everything is delivered except for the EOF, which is to wait.
    EofDeferred,
    /// The source's EOF was passed on.
    Ended,
}

/// What a direction does once its source's EOF is all that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eof {
    /// Passes it on.
    PassOn,
    /// Keeps it for later.
    Keep,
    /// PipeFds without a shutdown(2), which would be a wasted system call: both sockets will be closed right away.
    Close,
}

impl Direction {
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn source_closed(&self) -> bool {
        self.source_closed
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn holds_bytes(&self) -> bool {
        match &self.undelivered {
            Undelivered::Empty => false,
            Undelivered::Bytes(..) => true,
            Undelivered::Pipe(pipe) => pipe.filled > 0,
        }
    }

    pub(super) fn has_moved_since_check(&self) -> bool {
        self.moved != self.moved_at_check
    }

    pub(super) fn checked(&mut self) {
        self.moved_at_check = self.moved;
    }

    /// PipeFds it although its sink takes nothing more: what is in undelivered, and what may still come, is dropped.
    pub(super) fn abandon(&mut self) {
        self.undelivered = Undelivered::Empty;
        self.ended = true;
    }

    /// Moves what can be moved now.
    pub(super) fn run(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext,
        eof: Eof,
    ) -> Result<Progress, DirectionError> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let start = self.moved;
        loop {
            if self.deliver(sink, io)?.is_pending() {
                return Ok(Progress::Blocked);
            }
            if self.source_closed {
                return Ok(self.end(sink, eof));
            }
            if self.moved - start >= QUANTUM {
                return Ok(Progress::Yielded);
            }
            if self.read(source, sink, io)?.is_pending() {
                return Ok(Progress::Blocked);
            }
        }
    }

    /// The EOF waits until the kernel has sent everything before it: afterwards nobody could tell whether a slow reader still needs time (see
    /// [`super::stall`]), and what has been sent has its registration in the peer's socket, whatever becomes of this one.
    fn end(&mut self, sink: &mut PolledStream, eof: Eof) -> Progress {
        // Less fits into the window that every connection starts with.
        if self.moved >= BUFFER as u64 && !sink.has_sent_all() {
            return Progress::Blocked;
        }
        match eof {
            Eof::Keep => return Progress::EofDeferred,
            Eof::PassOn => {
                // A sink that is gone already says so in its own direction.
                let _already_gone = rustix::net::shutdown(&sink.stream, Shutdown::Write);
            }
            Eof::Close => {}
        }
        self.ended = true;
        Progress::Ended
    }

    /// Delivers what is in undelivered; ready when nothing is left.
    fn deliver(&mut self, sink: &mut PolledStream, io: &mut IoContext) -> Result<Poll<()>, DirectionError> {
        while self.holds_bytes() {
            let sent = match &mut self.undelivered {
                Undelivered::Empty => break,
                Undelivered::Bytes(bytes, gone) => sink.write(|sink| io.syscalls.send(sink, &bytes[*gone..])),
                Undelivered::Pipe(pipe) => sink.write(|sink| io.syscalls.drain(pipe.output(), sink, pipe.filled)),
            };
            let sent = match sent {
                Err(error) if is_refused(&error) && self.takes_bytes_out(&error, io)? => continue,
                sent => sent.map_err(DirectionError::sink)?,
            };
            let Some(sent) = sent else {
                return Ok(Poll::Pending);
            };
            self.moved += sent as u64;
            match &mut self.undelivered {
                Undelivered::Empty => {}
                Undelivered::Bytes(bytes, gone) => {
                    *gone += sent;
                    if *gone == bytes.len() {
                        self.undelivered = Undelivered::Empty;
                    }
                }
                Undelivered::Pipe(_) if sent == 0 => {
                    return Err(DirectionError::own(io::Error::other(
                        "splice(2) delivered nothing of a full pipe",
                    )));
                }
                Undelivered::Pipe(pipe) => pipe.filled -= sent,
            }
        }
        Ok(Poll::Ready(()))
    }

    /// With nothing in undelivered: reads, and when it was copied delivers at once what the sink takes.
    fn read(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext,
    ) -> Result<Poll<()>, DirectionError> {
        if self.streaming && matches!(self.undelivered, Undelivered::Empty) {
            // None to be had: copying does the same, slower.
            self.undelivered = io.take_pipe().map_or(Undelivered::Empty, Undelivered::Pipe);
        }
        let read = match &mut self.undelivered {
            Undelivered::Pipe(pipe) => {
                debug_assert_eq!(pipe.filled, 0, "only with an empty pipe is EAGAIN the socket's");
                // A short count says nothing about what is left.
                let read = source.read(
                    |_| false,
                    |source| io.syscalls.fill(source, pipe.input(), pipe.capacity()),
                );
                match read {
                    Err(error) if is_refused(&error) => {
                        io.traffic.pipes.splice_is_refused(&error);
                        self.undelivered = Undelivered::Empty;
                        self.copy(source, sink, io)?
                    }
                    read => {
                        let read = read.map_err(DirectionError::source)?;
                        if let Some(read) = read {
                            pipe.filled = read;
                            self.streaming = read >= BUFFER;
                        }
                        read
                    }
                }
            }
            Undelivered::Empty | Undelivered::Bytes(..) => self.copy(source, sink, io)?,
        };
        match read {
            Some(0) => self.source_closed = true,
            Some(_) => return Ok(Poll::Ready(())),
            None => {}
        }
        // Nothing to read, so the pipe, which is empty, serves others meanwhile.
        self.undelivered = Undelivered::Empty;
        Ok(if self.source_closed {
            Poll::Ready(())
        } else {
            Poll::Pending
        })
    }

    /// After splice(2) was refused with bytes in a pipe: takes them out by read(2). Tells whether there was a pipe.
    fn takes_bytes_out(&mut self, error: &io::Error, io: &mut IoContext) -> Result<bool, DirectionError> {
        let Undelivered::Pipe(pipe) = &mut self.undelivered else {
            return Ok(false);
        };
        io.traffic.pipes.splice_is_refused(error);
        let mut bytes = vec![0; pipe.filled];
        let mut taken = 0;
        while pipe.filled > 0 {
            let read = io.syscalls.take_out(pipe.output(), &mut bytes[taken..]);
            let read = read.map_err(|error| DirectionError::own(error.into()))?;
            if read == 0 {
                return Err(DirectionError::own(io::Error::other("a pipe lost bytes")));
            }
            taken += read;
            pipe.filled -= read;
        }
        self.undelivered = Undelivered::Bytes(bytes.into_boxed_slice(), 0);
        Ok(true)
    }

    /// One reading into the worker's buffer, and one sending of it. Returns what was read.
    fn copy(
        &mut self,
        source: &mut PolledStream,
        sink: &mut PolledStream,
        io: &mut IoContext,
    ) -> Result<Option<usize>, DirectionError> {
        let IoContext { buffer, syscalls, .. } = io;
        let read = source.read(|count| count < BUFFER, |source| syscalls.recv(source, buffer));
        let read = match read.map_err(DirectionError::source)? {
            Some(read) if read > 0 => read,
            nothing => return Ok(nothing),
        };
        self.streaming = read == BUFFER;
        let sent = sink
            .write(|sink| syscalls.send(sink, &buffer[..read]))
            .map_err(DirectionError::sink)?;
        let sent = sent.unwrap_or(0);
        self.moved += sent as u64;
        if sent < read {
            self.undelivered = Undelivered::Bytes(buffer[sent..read].into(), 0);
        }
        Ok(Some(read))
    }
}

/// Whether a system without splice(2) for sockets answers like this: a seccomp profile, or a kernel in user space.
fn is_refused(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)
    )
}

impl DirectionError {
    fn source(error: io::Error) -> Self {
        Self::by(FailedEnd::Source, error)
    }

    fn sink(error: io::Error) -> Self {
        Self::by(FailedEnd::Sink, error)
    }

    fn own(error: io::Error) -> Self {
        Self::by(FailedEnd::Own, error)
    }

    fn by(failed: FailedEnd, error: io::Error) -> Self {
        let failed = match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput => FailedEnd::Own,
            _ => failed,
        };
        Self { failed, error }
    }
}
