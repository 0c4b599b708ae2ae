//! One direction of a session: small messages are copied, a stream is spliced, an EOF is passed on once everything before it was delivered.

use std::io;
use std::mem;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::copy::{self, BUFFER};
use super::pipes::{Pipe, Pipes};
use super::{splice, stall};

/// A direction gives way to other sessions of its thread after so many bytes: some 50 to 100 µs at the speed of memory.
const TURN: usize = 2 << 20;

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
    /// Read once more, whatever the readiness says: see [`Flow::checked`].
    look_again: bool,
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

    /// A check of a direction that moved bytes since the last. Its next turn reads once without asking for readiness: recv(2) stops short at the
    /// mark of urgent data although more follows, and what follows would otherwise lie there until the peer sends again.
    pub(super) fn checked(&mut self) {
        self.look_again = self.has_moved_since_check();
        self.moved_at_check = self.moved;
    }

    /// Moves what can be moved now. Ready once the source's EOF was passed on. When `last`, the other direction has ended before: the sink will be
    /// closed right away, and a shutdown(2) of its own would be a wasted system call.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        pipes: &Pipes,
        meter: &IntCounter,
        last: bool,
    ) -> Poll<Result<(), Broken>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let before = self.moved;
        let polled = self.poll_turn(cx, source, sink, pipes);
        meter.inc_by(self.moved - before);
        ready!(polled)?;
        self.ended = true;
        // Less fits into the window that every connection starts with.
        if self.moved >= BUFFER as u64 {
            stall::leave_time_for_unsent(sink);
        }
        // A sink that is gone already says so in its own direction.
        if !last {
            let _already_gone = rustix::net::shutdown(sink, Shutdown::Write);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        pipes: &Pipes,
    ) -> Poll<Result<(), Broken>> {
        let start = self.moved;
        loop {
            ready!(self.poll_deliver(cx, sink))?;
            if self.moved - start >= TURN as u64 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !ready!(self.poll_read(cx, source, sink, pipes))? {
                self.source_closed = true;
                self.hand = Hand::Empty;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Delivers what is in hand; ready when nothing is left.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<Result<(), Broken>> {
        while self.holds_bytes() {
            let sent = match &mut self.hand {
                Hand::Empty => return Poll::Ready(Ok(())),
                Hand::Bytes(bytes, gone) => copy::send(sink, &bytes[*gone..]),
                Hand::Pipe(pipe) => splice::drain(pipe, sink),
            };
            let Some(sent) = would_block(sent).map_err(Broken::sink)? else {
                ready!(sink.poll_write_ready(cx)).map_err(Broken::sink)?;
                continue;
            };
            self.moved += sent as u64;
            if let Hand::Bytes(bytes, gone) = &mut self.hand {
                *gone += sent;
                if *gone == bytes.len() {
                    self.hand = Hand::Empty;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// With nothing in hand: reads, and when it was copied delivers at once what the sink takes. Ready with false at EOF.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        pipes: &Pipes,
    ) -> Poll<Result<bool, Broken>> {
        loop {
            if self.streaming && matches!(self.hand, Hand::Empty) {
                // None to be had: copying does the same, slower.
                self.hand = pipes.take().map_or(Hand::Empty, Hand::Pipe);
            }
            let read = match &mut self.hand {
                Hand::Pipe(pipe) => {
                    let read = splice::fill(source, pipe);
                    if let Ok(read) = read {
                        self.streaming = read >= BUFFER;
                    }
                    read
                }
                Hand::Empty | Hand::Bytes(..) => self.copy_once(source, sink)?,
            };
            match would_block(read).map_err(Broken::source)? {
                Some(0) => return Poll::Ready(Ok(false)),
                Some(_) => return Poll::Ready(Ok(true)),
                None => {
                    // Nothing to read, so the pipe, which is empty, serves others meanwhile.
                    self.hand = Hand::Empty;
                    ready!(source.poll_read_ready(cx)).map_err(Broken::source)?;
                }
            }
        }
    }

    /// One reading into the thread's buffer, and one sending of it. The inner result is the reading's.
    fn copy_once(&mut self, source: &TcpStream, sink: &TcpStream) -> Result<io::Result<usize>, Broken> {
        let looked_again = mem::take(&mut self.look_again);
        copy::with_buffer(|buffer| {
            let read = if looked_again {
                copy::recv_unasked(source, buffer)
            } else {
                copy::recv(source, buffer)
            };
            let read = match read {
                Ok(read) if read > 0 => read,
                nothing => return Ok(nothing),
            };
            self.streaming = read == BUFFER;
            let sent = would_block(copy::send(sink, &buffer[..read])).map_err(Broken::sink)?;
            let sent = sent.unwrap_or(0);
            self.moved += sent as u64;
            if sent < read {
                self.hand = Hand::Bytes(buffer[sent..read].into(), 0);
            }
            Ok(Ok(read))
        })
    }
}

impl Broken {
    fn source(error: io::Error) -> Self {
        Self::by(Culprit::Source, error)
    }

    fn sink(error: io::Error) -> Self {
        Self::by(Culprit::Sink, error)
    }

    fn by(culprit: Culprit, error: io::Error) -> Self {
        let culprit = match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput => Culprit::Own,
            _ => culprit,
        };
        Self { culprit, error }
    }
}

/// `None` when the socket is not ready: its readiness has been cleared, and waiting for it will not miss the next event.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `operation` if the socket may be ready, and clears its readiness when the operation says that it is not.
pub(super) fn attempt(
    socket: &TcpStream,
    interest: Interest,
    mut operation: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    socket.try_io(interest, || Ok(rustix::io::retry_on_intr(&mut operation)?))
}
