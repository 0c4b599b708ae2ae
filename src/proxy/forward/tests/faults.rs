//! Fake kernels: short reads and writes, sockets that seem not to be ready, and a refused splice(2).

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::io::{Errno, Result};

use super::super::reactor::{Kernel, Syscalls};
use super::content::Random;

/// A fake in front of the real system calls; the calls that it does not refuse are real.
pub(super) struct FaultyKernel {
    random: Random,
    faked_readiness: bool,
}

impl FaultyKernel {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            faked_readiness: false,
        }
    }

    /// Returns true if the call is not to be made at all.
    fn refuses(&mut self) -> bool {
        let refuses = self.random.once_in(4);
        self.faked_readiness |= refuses;
        refuses
    }

    /// Returns how much of `length` the call may move: in half of the calls, all of it; otherwise, a random number of
    /// bytes, at least one.
    fn most(&mut self, length: usize) -> usize {
        if length <= 1 || self.random.once_in(2) {
            return length;
        }
        // The reader treats the socket as drained.
        self.faked_readiness = true;
        1 + self.random.below(length as u64 - 1) as usize
    }
}

impl Syscalls for FaultyKernel {
    fn recv(&mut self, source: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        if self.refuses() {
            return Err(Errno::AGAIN);
        }
        let most = self.most(buffer.len());
        Kernel.recv(source, &mut buffer[..most])
    }

    fn send(&mut self, sink: &TcpStream, bytes: &[u8]) -> Result<usize> {
        if self.refuses() {
            return Err(Errno::AGAIN);
        }
        let most = self.most(bytes.len());
        Kernel.send(sink, &bytes[..most])
    }

    fn fill(&mut self, source: &TcpStream, pipe: &OwnedFd, most: usize) -> Result<usize> {
        if self.refuses() {
            return Err(Errno::AGAIN);
        }
        let most = self.most(most);
        Kernel.fill(source, pipe, most)
    }

    fn drain(&mut self, pipe: &OwnedFd, sink: &TcpStream, most: usize) -> Result<usize> {
        if self.refuses() {
            return Err(Errno::AGAIN);
        }
        let most = self.most(most);
        Kernel.drain(pipe, sink, most)
    }

    fn faked_readiness(&mut self) -> bool {
        std::mem::take(&mut self.faked_readiness)
    }

    fn take_out(&mut self, pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
        let most = if buffer.is_empty() { 0 } else { self.most(buffer.len()) };
        Kernel.take_out(pipe, &mut buffer[..most])
    }
}

/// A fake of a socket that has received `left` bytes already, so that epoll sends no further event for it. Its sink
/// accepts everything.
pub(super) struct Received {
    pub(super) left: usize,
}

impl Syscalls for Received {
    fn recv(&mut self, _: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        let read = self.left.min(buffer.len());
        self.left -= read;
        if read == 0 { Err(Errno::AGAIN) } else { Ok(read) }
    }

    fn send(&mut self, _: &TcpStream, bytes: &[u8]) -> Result<usize> {
        Ok(bytes.len())
    }

    fn fill(&mut self, _: &TcpStream, _: &OwnedFd, _: usize) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn drain(&mut self, _: &OwnedFd, _: &TcpStream, _: usize) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn take_out(&mut self, _: &OwnedFd, _: &mut [u8]) -> Result<usize> {
        Err(Errno::INVAL)
    }
}

/// A fake of a leader that sent `left` bytes before a send to it fails. The send fails before epoll reports these bytes.
/// The client accepts everything.
pub(super) struct LostLeader {
    /// pgnorth's address of the connection to the leader.
    pub(super) own: Arc<OnceLock<SocketAddr>>,
    pub(super) is_lost: bool,
    pub(super) left: usize,
    /// The error of the send, for example that the leader has reset the connection.
    pub(super) error: Errno,
}

impl LostLeader {
    fn is(&self, stream: &TcpStream) -> bool {
        self.own.get().copied() == stream.local_addr().ok()
    }
}

impl Syscalls for LostLeader {
    fn recv(&mut self, source: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        if !self.is(source) {
            return Kernel.recv(source, buffer);
        }
        if !self.is_lost {
            return Err(Errno::AGAIN);
        }
        let read = self.left.min(buffer.len());
        self.left -= read;
        if read == 0 { Err(Errno::CONNRESET) } else { Ok(read) }
    }

    fn send(&mut self, sink: &TcpStream, bytes: &[u8]) -> Result<usize> {
        if self.is(sink) {
            self.is_lost = true;
            return Err(self.error);
        }
        Ok(bytes.len())
    }

    fn fill(&mut self, _: &TcpStream, _: &OwnedFd, _: usize) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn drain(&mut self, _: &OwnedFd, _: &TcpStream, _: usize) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn take_out(&mut self, _: &OwnedFd, _: &mut [u8]) -> Result<usize> {
        Err(Errno::INVAL)
    }
}

/// A fake of a system whose splice(2) fails, as under a seccomp profile or on a kernel in user space.
pub(super) struct FailingSplice {
    /// The error of a splice from a socket; `None` if it works, so that a pipe already holds bytes.
    pub(super) fill: Option<Errno>,
    /// The result of a splice into a socket.
    pub(super) drain: Result<usize>,
}

impl Syscalls for FailingSplice {
    fn recv(&mut self, source: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        Kernel.recv(source, buffer)
    }

    fn send(&mut self, sink: &TcpStream, bytes: &[u8]) -> Result<usize> {
        Kernel.send(sink, bytes)
    }

    fn fill(&mut self, source: &TcpStream, pipe: &OwnedFd, most: usize) -> Result<usize> {
        self.fill.map_or_else(|| Kernel.fill(source, pipe, most), Err)
    }

    fn drain(&mut self, _: &OwnedFd, _: &TcpStream, _: usize) -> Result<usize> {
        self.drain
    }

    fn take_out(&mut self, pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
        // read(2) may return a part.
        let most = buffer.len().min(10_000);
        Kernel.take_out(pipe, &mut buffer[..most])
    }
}
