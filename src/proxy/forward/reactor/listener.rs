//! Accepts clients from a listening socket that several workers share.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::task::Poll;

use rustix::event::epoll::EventFlags;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::registry::{Reactor, Registration};
use super::token::Token;

/// EPOLLEXCLUSIVE, for which rustix has no constant: the kernel wakes at least one of the workers that wait, and
/// usually not all of them.
const EXCLUSIVE: EventFlags = EventFlags::from_bits_retain(1 << 28);

#[derive(Debug)]
pub(crate) struct Listener<'a> {
    listener: &'a TcpListener,
    registration: Registration,
}

impl<'a> Listener<'a> {
    /// Adds `listener`, which must be non-blocking, to the worker's epoll.
    pub(crate) fn new(listener: &'a TcpListener, reactor: &Reactor) -> io::Result<Self> {
        let token = Token::Listener(reactor.next_number());
        let registration = reactor.register(token);
        // Level-triggered: one client is accepted for each event, without a further call that returns EAGAIN.
        reactor.epoll().add(listener, token, EventFlags::IN | EXCLUSIVE)?;
        Ok(Self { listener, registration })
    }

    /// Waits for a client and accepts it. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            poll_fn(|context| {
                if self.registration.take_events().is_empty() {
                    return self.registration.wait(context);
                }
                Poll::Ready(())
            })
            .await;
            match accept(self.listener) {
                // Another worker or process has accepted the client.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted,
            }
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        // The socket itself stays open for the other workers.
        let _was_there = self.registration.epoll().remove(self.listener);
    }
}

/// Accepts a client that is already waiting. Returns a `WouldBlock` error if there is none.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or_else(|| io::Error::other("accept(2) did not return the client's address"))?;
    Ok((stream.into(), peer))
}
