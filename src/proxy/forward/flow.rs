//! One direction of a session: small messages are copied, a stream is spliced, an EOF is passed on once everything before it was delivered.

use std::io;
use std::task::Poll;

use rustix::net::Shutdown;

use super::pipes::Pipe;
use super::stall;
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
    /// The source's EOF was passed on.
    Ended,
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

    /// Moves what can be moved now. When `last`, the other direction has ended before: the sink will be closed right away, and a shutdown(2) of its own
    /// would be a wasted system call.
    pub(super) fn run(
        &mut self,
        source: &mut Watched,
        sink: &mut Watched,
        tools: &mut Tools,
        last: bool,
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
                break;
            }
            if self.moved - start >= TURN {
                return Ok(Progress::GivesWay);
            }
            if self.read(source, sink, tools)?.is_pending() {
                return Ok(Progress::Waits);
            }
        }
        self.ended = true;
        // Less fits into the window that every connection starts with.
        if self.moved >= BUFFER as u64 {
            stall::leave_time_for_unsent(&sink.stream);
        }
        // A sink that is gone already says so in its own direction.
        if !last {
            let _already_gone = rustix::net::shutdown(&sink.stream, Shutdown::Write);
        }
        Ok(Progress::Ended)
    }

    /// Delivers what is in hand; ready when nothing is left.
    fn deliver(&mut self, sink: &mut Watched, tools: &mut Tools) -> Result<Poll<()>, Broken> {
        while self.holds_bytes() {
            let sent = match &mut self.hand {
                Hand::Empty => break,
                Hand::Bytes(bytes, gone) => sink.write(|sink| tools.calls.send(sink, &bytes[*gone..])),
                Hand::Pipe(pipe) => sink.write(|sink| tools.calls.drain(pipe.output(), sink, pipe.filled)),
            };
            let Some(sent) = sent.map_err(Broken::sink)? else {
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
            self.hand = tools.traffic.pipes.take().map_or(Hand::Empty, Hand::Pipe);
        }
        let read = match &mut self.hand {
            Hand::Pipe(pipe) => {
                debug_assert_eq!(pipe.filled, 0, "only with an empty pipe is EAGAIN the socket's");
                // A short count says nothing about what is left.
                let read = source.read(
                    |_| false,
                    |source| tools.calls.fill(source, pipe.input(), pipe.capacity()),
                );
                if let Ok(Some(read)) = read {
                    pipe.filled = read;
                    self.streaming = read >= BUFFER;
                }
                read.map_err(Broken::source)?
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
