//! Streams: splice(2) moves pages from one socket to the other through a pipe, without copying them.

use std::io;

use rustix::pipe::SpliceFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::flow::attempt;
use super::pipes::Pipe;

// MOVE is a hint. NONBLOCK concerns the pipe; the sockets are non-blocking themselves.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Fills an *empty* pipe: only then is `WouldBlock` the socket's and not the pipe's. 0 is EOF. A short count says nothing about what is left.
pub(super) fn fill(source: &TcpStream, pipe: &mut Pipe) -> io::Result<usize> {
    debug_assert_eq!(pipe.filled, 0, "a pipe is filled only when it is empty");
    let read = attempt(source, Interest::READABLE, || {
        rustix::pipe::splice(source, None, pipe.input(), None, pipe.capacity(), FLAGS)
    })?;
    pipe.filled = read;
    Ok(read)
}

/// Delivers from a pipe that holds something what the sink takes; `WouldBlock` when it takes nothing.
pub(super) fn drain(pipe: &mut Pipe, sink: &TcpStream) -> io::Result<usize> {
    let sent = attempt(sink, Interest::WRITABLE, || {
        rustix::pipe::splice(pipe.output(), None, sink, None, pipe.filled, FLAGS)
    })?;
    if sent == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("splice delivered nothing of {} bytes", pipe.filled),
        ));
    }
    pipe.filled -= sent;
    Ok(sent)
}
