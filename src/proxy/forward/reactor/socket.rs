//! A socket of a session that is being opened: async, and in its worker's epoll from the beginning.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::{Shutdown, connect};

use super::registry::{Reactor, Registration};
use super::stream::PolledStream;
use super::syscalls::{Kernel, Syscalls};
use super::token::{Side, Token};
use crate::proxy::socket;

/// Maximum number of bytes per read before a session is forwarded. First packets and first answers have a few hundred
/// bytes.
const CHUNK: usize = 2048;

#[derive(Debug)]
pub(crate) struct Socket {
    polled: RefCell<PolledStream>,
    /// The session's number, which both of its sockets share.
    number: u64,
    registration: Registration,
}

impl Socket {
    /// Adds a client's stream, which must be connected and non-blocking, to the worker's epoll.
    pub(crate) fn of_client(stream: TcpStream, reactor: &Reactor) -> io::Result<Self> {
        let number = reactor.next_number();
        let token = Token::Socket(number, Side::Client);
        Self::watch(reactor, number, token, PolledStream::new(stream, token))
    }

    fn watch(reactor: &Reactor, number: u64, token: Token, polled: PolledStream) -> io::Result<Self> {
        let registration = reactor.register(token);
        polled.watch(reactor.epoll())?;
        Ok(Self {
            polled: RefCell::new(polled),
            number,
            registration,
        })
    }

    /// Connects `own`, which must be non-blocking, to `target`, the leader of this client. Cancel-safe.
    pub(crate) async fn dial(&self, own: TcpStream, target: SocketAddr) -> io::Result<Self> {
        match connect(&own, &target) {
            Ok(()) => return self.with_leader(own),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let token = Token::Socket(self.number, Side::Leader);
        let connecting = PolledStream::connecting(own, token);
        let leader = Self::watch(self.registration.reactor(), self.number, token, connecting)?;
        leader.retry(|polled| polled.has_connected()).await?;
        Ok(leader)
    }

    /// Adds a stream that is already connected to this client's leader to the worker's epoll.
    pub(crate) fn with_leader(&self, leader: TcpStream) -> io::Result<Self> {
        let token = Token::Socket(self.number, Side::Leader);
        let polled = PolledStream::new(leader, token);
        Self::watch(self.registration.reactor(), self.number, token, polled)
    }

    /// Sets the number of unsent bytes up to which the socket accepts more; `None` restores the system's default.
    pub(crate) fn set_max_unsent(&self, bytes: Option<u32>) {
        // This fails only for a connection that is gone, which the next read or write reports.
        let _gone = socket::set_notsent_lowat(&self.polled.borrow().stream, bytes.unwrap_or(0));
    }

    /// Waits for bytes and reads up to 2 KiB. Returns no bytes at the end of the stream. Cancel-safe.
    pub(crate) async fn receive(&self) -> io::Result<Vec<u8>> {
        self.retry(|polled| {
            let mut buffer = [0; CHUNK];
            let read = polled.read(|count| count < CHUNK, |stream| Kernel.recv(stream, &mut buffer))?;
            Ok(read.map(|read| buffer[..read].to_vec()))
        })
        .await
    }

    /// Sends all bytes. Not cancel-safe: the caller cannot know how many were sent.
    pub(crate) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self
                .retry(|polled| polled.write(|stream| Kernel.send(stream, bytes)))
                .await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Completes when the peer has closed the connection or the connection has broken, even if bytes are unread. Reads
    /// nothing. Cancel-safe.
    pub(crate) async fn closed(&self) {
        // The attempt has no error.
        let _closed = self.retry(|polled| Ok(polled.has_ended().then_some(()))).await;
    }

    /// Sends the FIN. Reading remains possible.
    pub(crate) fn shut_write(&self) {
        // A peer that is gone needs no FIN.
        let _already_gone = rustix::net::shutdown(&self.polled.borrow().stream, Shutdown::Write);
    }

    /// Returns the local address of this connection.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.polled.borrow().stream.local_addr()
    }

    /// Repeats `attempt` after each event until it returns a value or an error.
    async fn retry<T>(&self, mut attempt: impl FnMut(&mut PolledStream) -> io::Result<Option<T>>) -> io::Result<T> {
        poll_fn(|context| {
            let polled = &mut *self.polled.borrow_mut();
            polled.on_event(self.registration.take_events());
            match attempt(polled) {
                Ok(Some(done)) => Poll::Ready(Ok(done)),
                Err(error) => Poll::Ready(Err(error)),
                Ok(None) => {
                    polled.update_write_interest(self.registration.epoll())?;
                    self.registration.wait(context)
                }
            }
        })
        .await
    }

    /// Removes the socket from the worker's epoll. Returns the stream, in which unread bytes remain.
    pub(crate) fn into_stream(self) -> TcpStream {
        let polled = self.polled.into_inner();
        // This fails only for a socket that is not in this epoll.
        let _was_there = polled.unwatch(self.registration.epoll());
        polled.stream
    }

    /// Returns the session's number and the stream, with all events so far, for the relay.
    pub(crate) fn into_polled(self) -> (u64, PolledStream) {
        let mut polled = self.polled.into_inner();
        polled.on_event(self.registration.take_events());
        (self.number, polled)
    }
}
