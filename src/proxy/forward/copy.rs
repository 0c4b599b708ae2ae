//! Small messages: one recv(2) and one send(2), through a buffer that belongs to the thread.

use std::cell::RefCell;
use std::io;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::flow::attempt;

/// The buffer's size. Copying and splicing cost the same somewhere between 64 and 128 KiB a message (measured).
pub(super) const BUFFER: usize = 64 * 1024;

thread_local! {
    // One for all sessions of a thread, so that an idle session holds none; it is never borrowed across an await.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Lends the thread's buffer of [`BUFFER`] bytes. Not to be nested.
pub(super) fn with_buffer<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    SHARED.with_borrow_mut(|buffer| work(buffer))
}

/// Reads what is there. 0 is EOF; `WouldBlock` when nothing is.
///
/// A short reading has drained the socket, so its readiness is cleared in the same `try_io` as the reading: the next wait costs no system call that
/// only says EAGAIN. Clearing it any later could lose an event that came in between. tokio never clears a FIN that it saw.
pub(super) fn recv(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    let attempted = attempt(source, Interest::READABLE, || {
        (_, read) = rustix::net::recv(source, &mut *buffer, RecvFlags::empty())?;
        if 0 < read && read < buffer.len() {
            return Err(rustix::io::Errno::AGAIN);
        }
        Ok(read)
    });
    if read > 0 { Ok(read) } else { attempted }
}

/// Reads what is there, whatever the readiness says, and leaves that as it is.
pub(super) fn recv_unasked(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, read) = rustix::io::retry_on_intr(|| rustix::net::recv(source, &mut *buffer, RecvFlags::DONTWAIT))?;
    Ok(read)
}

/// Sends what the sink takes; `WouldBlock` when it takes nothing.
pub(super) fn send(sink: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    attempt(sink, Interest::WRITABLE, || {
        rustix::net::send(sink, bytes, SendFlags::NOSIGNAL)
    })
}
