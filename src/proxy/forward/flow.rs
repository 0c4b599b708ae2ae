//! One direction of a session: small messages are copied, a stream is spliced, an EOF is passed on once everything before it was delivered.

use std::io;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::pipes::Pipe;
use super::watched::Watched;
use super::worker::Tools;

/// The size of a worker's buffer. Copying and splicing cost the same somewhere between 64 and 128 KiB a message (measured).
pub(super) const BUFFER: usize = 64 * 1024;
/// A direction gives way to other sessions of its worker after so many bytes: some 50 to 100 µs at the speed of memory.
const TURN: u64 = 2 << 20;

/// One direction. It owns what was read and not yet delivered, and nothing while idle.
#[derive(Debug, Default)]
pub(super) struct Flow {
    hand: Hand,
    /// The last reading filled a buffer: try splice(2) first.
    streaming: bool,
    source_closed: bool,
    ended: bool,
    moved: u64,
    moved_at_check: u64,
}

/// What was read and is not yet delivered.
#[derive(Debug, Default)]
enum Hand {
    #[default]
    Empty,
    /// The tail that the sink did not take; the number is how much of it went since.
    Bytes(Box<[u8]>, usize),
    /// In a pipe; possibly none at the moment.
    Pipe(Pipe),
}

/// Why a direction cannot go on.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) culprit: Culprit,
    pub(super) error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    Source,
    Sink,
    /// Neither: memory ran out.
    Own,
}

/// How far a direction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for an edge.
    Waits,
    /// It could go on, but others are to have their turn.
    GivesWay,
    /// Everything is delivered except for the EOF, which is to wait.
    KeepsEof,
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
    /// Ends without a shutdown(2), which would be a wasted system call: both sockets will be closed right away.
    Close,
}

impl Flow {
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
        match &self.hand {
            Hand::Empty => false,
            Hand::Bytes(..) => true,
            Hand::Pipe(pipe) => pipe.filled > 0,
        }
    }

    pub(super) fn has_moved_since_check(&self) -> bool {
        self.moved != self.moved_at_check
    }

    pub(super) fn checked(&mut self) {
        self.moved_at_check = self.moved;
    }

    /// Ends it although its sink takes nothing more: what is in hand, and what may still come, is dropped.
    pub(super) fn abandon(&mut self) {
        self.hand = Hand::Empty;
        self.ended = true;
    }

    /// Moves what can be moved now.
    pub(super) fn run(
        &mut self,
        source: &mut Watched,
        sink: &mut Watched,
        tools: &mut Tools,
        eof: Eof,
    ) -> Result<Progress, Broken> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let start = self.moved;
        loop {
            if self.deliver(sink, tools)?.is_pending() {
                return Ok(Progress::Waits);
            }
            if self.source_closed {
                return Ok(self.end(sink, eof));
            }
            if self.moved - start >= TURN {
                return Ok(Progress::GivesWay);
            }
            if self.read(source, sink, tools)?.is_pending() {
                return Ok(Progress::Waits);
            }
        }
    }

    /// The EOF waits until the kernel has sent everything before it: afterwards nobody could tell whether a slow reader still needs time (see
    /// [`super::stall`]), and what has been sent has its place in the peer's socket, whatever becomes of this one.
    fn end(&mut self, sink: &mut Watched, eof: Eof) -> Progress {
        // Less fits into the window that every connection starts with.
        if self.moved >= BUFFER as u64 && !sink.has_sent_all() {
            return Progress::Waits;
        }
        match eof {
            Eof::Keep => return Progress::KeepsEof,
            Eof::PassOn => {
                // A sink that is gone already says so in its own direction.
                let _already_gone = rustix::net::shutdown(&sink.stream, Shutdown::Write);
            }
            Eof::Close => {}
        }
        self.ended = true;
        Progress::Ended
    }

    /// Delivers what is in hand; ready when nothing is left.
    fn deliver(&mut self, sink: &mut Watched, tools: &mut Tools) -> Result<Poll<()>, Broken> {
        while self.holds_bytes() {
            let sent = match &mut self.hand {
                Hand::Empty => break,
                Hand::Bytes(bytes, gone) => sink.write(|sink| tools.calls.send(sink, &bytes[*gone..])),
                Hand::Pipe(pipe) => sink.write(|sink| tools.calls.drain(pipe.output(), sink, pipe.filled)),
            };
            let sent = match sent {
                Err(error) if is_refused(&error) && self.takes_bytes_out(&error, tools)? => continue,
                sent => sent.map_err(Broken::sink)?,
            };
            let Some(sent) = sent else {
                return Ok(Poll::Pending);
            };
            self.moved += sent as u64;
            match &mut self.hand {
                Hand::Empty => {}
                Hand::Bytes(bytes, gone) => {
                    *gone += sent;
                    if *gone == bytes.len() {
                        self.hand = Hand::Empty;
                    }
                }
                Hand::Pipe(_) if sent == 0 => {
                    return Err(Broken::own(io::Error::other(
                        "splice(2) delivered nothing of a full pipe",
                    )));
                }
                Hand::Pipe(pipe) => pipe.filled -= sent,
            }
        }
        Ok(Poll::Ready(()))
    }

    /// With nothing in hand: reads, and when it was copied delivers at once what the sink takes.
    fn read(&mut self, source: &mut Watched, sink: &mut Watched, tools: &mut Tools) -> Result<Poll<()>, Broken> {
        if self.streaming && matches!(self.hand, Hand::Empty) {
            // None to be had: copying does the same, slower.
            self.hand = tools.take_pipe().map_or(Hand::Empty, Hand::Pipe);
        }
        let read = match &mut self.hand {
            Hand::Pipe(pipe) => {
                debug_assert_eq!(pipe.filled, 0, "only with an empty pipe is EAGAIN the socket's");
                // A short count says nothing about what is left.
                let read = source.read(
                    |_| false,
                    |source| tools.calls.fill(source, pipe.input(), pipe.capacity()),
                );
                match read {
                    Err(error) if is_refused(&error) => {
                        tools.traffic.pipes.splice_is_refused(&error);
                        self.hand = Hand::Empty;
                        self.copy(source, sink, tools)?
                    }
                    read => {
                        let read = read.map_err(Broken::source)?;
                        if let Some(read) = read {
                            pipe.filled = read;
                            self.streaming = read >= BUFFER;
                        }
                        read
                    }
                }
            }
            Hand::Empty | Hand::Bytes(..) => self.copy(source, sink, tools)?,
        };
        match read {
            Some(0) => self.source_closed = true,
            Some(_) => return Ok(Poll::Ready(())),
            None => {}
        }
        // Nothing to read, so the pipe, which is empty, serves others meanwhile.
        self.hand = Hand::Empty;
        Ok(if self.source_closed {
            Poll::Ready(())
        } else {
            Poll::Pending
        })
    }

    /// After splice(2) was refused with bytes in a pipe: takes them out by read(2). Tells whether there was a pipe.
    fn takes_bytes_out(&mut self, error: &io::Error, tools: &mut Tools) -> Result<bool, Broken> {
        let Hand::Pipe(pipe) = &mut self.hand else {
            return Ok(false);
        };
        tools.traffic.pipes.splice_is_refused(error);
        let mut bytes = vec![0; pipe.filled];
        let mut taken = 0;
        while pipe.filled > 0 {
            let read = tools.calls.take_out(pipe.output(), &mut bytes[taken..]);
            let read = read.map_err(|error| Broken::own(error.into()))?;
            if read == 0 {
                return Err(Broken::own(io::Error::other("a pipe lost bytes")));
            }
            taken += read;
            pipe.filled -= read;
        }
        self.hand = Hand::Bytes(bytes.into_boxed_slice(), 0);
        Ok(true)
    }

    /// One reading into the worker's buffer, and one sending of it. Returns what was read.
    fn copy(&mut self, source: &mut Watched, sink: &mut Watched, tools: &mut Tools) -> Result<Option<usize>, Broken> {
        let Tools { buffer, calls, .. } = tools;
        let read = source.read(|count| count < BUFFER, |source| calls.recv(source, buffer));
        let read = match read.map_err(Broken::source)? {
            Some(read) if read > 0 => read,
            nothing => return Ok(nothing),
        };
        self.streaming = read == BUFFER;
        let sent = sink
            .write(|sink| calls.send(sink, &buffer[..read]))
            .map_err(Broken::sink)?;
        let sent = sent.unwrap_or(0);
        self.moved += sent as u64;
        if sent < read {
            self.hand = Hand::Bytes(buffer[sent..read].into(), 0);
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

impl Broken {
    fn source(error: io::Error) -> Self {
        Self::by(Culprit::Source, error)
    }

    fn sink(error: io::Error) -> Self {
        Self::by(Culprit::Sink, error)
    }

    fn own(error: io::Error) -> Self {
        Self::by(Culprit::Own, error)
    }

    fn by(culprit: Culprit, error: io::Error) -> Self {
        let culprit = match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput => Culprit::Own,
            _ => culprit,
        };
        Self { culprit, error }
    }
}
