//! The system calls that move bytes, as a trait, so that a test can inject faults.
//!
//! The trait is a type parameter of the worker, not an object: the kernel's own calls are inlined, and the hook that
//! only fakes need compiles to nothing.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::io::{Result, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::SpliceFlags;

// MOVE is a hint. NONBLOCK applies to the pipe; the sockets are non-blocking themselves.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// The calls that a worker makes for its pairs. None of them blocks.
pub(crate) trait Syscalls: Send + 'static {
    /// recv(2).
    fn recv(&mut self, source: &TcpStream, buffer: &mut [u8]) -> Result<usize>;
    /// send(2), without SIGPIPE.
    fn send(&mut self, sink: &TcpStream, bytes: &[u8]) -> Result<usize>;
    /// splice(2) from a socket into a pipe.
    fn fill(&mut self, source: &TcpStream, pipe: &OwnedFd, most: usize) -> Result<usize>;
    /// splice(2) from a pipe into a socket.
    fn drain(&mut self, pipe: &OwnedFd, sink: &TcpStream, most: usize) -> Result<usize>;
    /// read(2) from a pipe.
    fn take_out(&mut self, pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize>;
    /// Returns true if, since this was last called, a system call reported a socket as not ready or as drained although
    /// it was not. epoll sends no event after such a call. Only fakes return true.
    fn faked_readiness(&mut self) -> bool {
        false
    }
}

/// The real calls.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Syscalls for Kernel {
    fn recv(&mut self, source: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        let (_, read) = retry_on_intr(|| rustix::net::recv(source, &mut *buffer, RecvFlags::empty()))?;
        Ok(read)
    }

    fn send(&mut self, sink: &TcpStream, bytes: &[u8]) -> Result<usize> {
        retry_on_intr(|| rustix::net::send(sink, bytes, SendFlags::NOSIGNAL))
    }

    fn fill(&mut self, source: &TcpStream, pipe: &OwnedFd, most: usize) -> Result<usize> {
        retry_on_intr(|| rustix::pipe::splice(source, None, pipe, None, most, FLAGS))
    }

    fn drain(&mut self, pipe: &OwnedFd, sink: &TcpStream, most: usize) -> Result<usize> {
        retry_on_intr(|| rustix::pipe::splice(pipe, None, sink, None, most, FLAGS))
    }

    fn take_out(&mut self, pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
        retry_on_intr(|| rustix::io::read(pipe, &mut *buffer))
    }
}
