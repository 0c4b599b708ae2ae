//! A worker as its tasks see it: where they start others, and the sockets that they wait for.
//!
//! What runs here before a session is forwarded is async and may use tokio's timers and channels, but its sockets belong to the worker's epoll: when
//! the leader has taken the client, nothing needs to change hands.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with, connect};

use super::polled_stream::PolledStream;
use super::syscalls::{Kernel, Syscalls};
use super::worker::Pair;
use crate::proxy::socket;

/// EPOLLEXCLUSIVE, which rustix does not name.
const EXCLUSIVE: EventFlags = EventFlags::from_bits_retain(1 << 28);
/// Read at once before a session is forwarded: first packets and first answers have some hundred bytes.
const CHUNK: usize = 2048;

/// Something that a worker does beside moving bytes; it may come to a pair whose bytes are to be moved.
pub(super) type Task<O> = Pin<Box<dyn Future<Output = Option<Pair<O>>>>>;

/// A worker, from inner. Clones are handles on the same worker.
pub(crate) struct Executor<O> {
    number: usize,
    reactor: Reactor,
    spawned: Rc<RefCell<Vec<Task<O>>>>,
}

/// The worker's epoll, and who waits for which of its sockets.
#[derive(Clone, Debug)]
pub(super) struct Reactor(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    epoll: OwnedFd,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Rc<EventState>>>,
}

/// What epoll told of a socket since its task last looked, and whom to wake. A socket is waited for by one task only.
#[derive(Debug)]
struct EventState {
    edges: Cell<EventFlags>,
    waker: RefCell<Option<Waker>>,
}

/// A socket's registration in epoll. Dropped, the reactor forgets it; epoll does when the socket is closed.
#[derive(Debug)]
struct Registration {
    token: u64,
    reactor: Reactor,
    waiting: Rc<EventState>,
}

/// A socket of a session that is not forwarded yet.
#[derive(Debug)]
pub(crate) struct Socket {
    watched: RefCell<PolledStream>,
    registration: Registration,
}

/// A listening socket that several workers share.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    listener: &'a TcpListener,
    registration: Registration,
}

impl<O> Clone for Executor<O> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            reactor: self.reactor.clone(),
            spawned: self.spawned.clone(),
        }
    }
}

impl<O: 'static> Executor<O> {
    pub(super) fn new(number: usize, epoll: OwnedFd) -> Self {
        let inner = Inner {
            epoll,
            next: Cell::new(0),
            waiting: RefCell::default(),
        };
        Self {
            number,
            reactor: Reactor(Rc::new(inner)),
            spawned: Rc::default(),
        }
    }

    /// Which of the workers it is.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Starts a task on this worker. One that panics is dropped, and the worker goes on.
    pub(crate) fn spawn(&self, task: impl Future<Output = Option<Pair<O>>> + 'static) {
        let task = AssertUnwindSafe(task).catch_unwind();
        self.spawned
            .borrow_mut()
            .push(Box::pin(task.map(|done| done.ok().flatten())));
    }

    /// What was started since this was last asked.
    pub(super) fn spawned(&self) -> Vec<Task<O>> {
        self.spawned.take()
    }

    /// A client's socket, connected and non-blocking.
    pub(crate) fn socket(&self, stream: TcpStream) -> io::Result<Socket> {
        Socket::watch(&self.reactor, self.reactor.next(), PolledStream::new(stream))
    }

    /// To accept from `listener`, which must be non-blocking. Of several workers that wait, one is woken.
    pub(crate) fn listen<'a>(&self, listener: &'a TcpListener) -> io::Result<Listener<'a>> {
        let registration = self.reactor.registration(self.reactor.next());
        // Not edge-triggered: who accepts one client at a time spares the call that says that there is no other.
        let edges = EventFlags::IN | EXCLUSIVE;
        epoll::add(
            self.reactor.epoll(),
            listener,
            EventData::new_u64(registration.token),
            edges,
        )?;
        Ok(Listener { listener, registration })
    }
}

impl Reactor {
    pub(super) fn epoll(&self) -> &OwnedFd {
        &self.0.epoll
    }

    /// A pair's number: its sockets have twice that as epoll's token, and one more for the leader's.
    fn next(&self) -> u64 {
        let next = self.0.next.get();
        self.0.next.set(next + 1);
        2 * next
    }

    fn registration(&self, token: u64) -> Registration {
        let waiting = Rc::new(EventState {
            edges: Cell::new(EventFlags::empty()),
            waker: RefCell::default(),
        });
        self.0.waiting.borrow_mut().insert(token, waiting.clone());
        Registration {
            token,
            reactor: self.clone(),
            waiting,
        }
    }

    /// What epoll tells of a socket that a task waits for; of any other it is out of date.
    pub(super) fn on_event(&self, token: u64, edges: EventFlags) {
        let waiting = self.0.waiting.borrow().get(&token).cloned();
        let Some(waiting) = waiting else { return };
        waiting.edges.set(waiting.edges.get() | edges);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

impl EventState {
    fn take(&self) -> EventFlags {
        self.edges.replace(EventFlags::empty())
    }

    fn wait<T>(&self, context: &Context<'_>) -> Poll<T> {
        let waker = &mut *self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.0.waiting.borrow_mut().remove(&self.token);
    }
}

impl Socket {
    fn watch(reactor: &Reactor, token: u64, watched: PolledStream) -> io::Result<Self> {
        let registration = reactor.registration(token);
        watched.watch(reactor.epoll(), token)?;
        Ok(Self {
            watched: RefCell::new(watched),
            registration,
        })
    }

    /// Connects `own`, which must be non-blocking, to `target`: the leader of this client. Cancel-safe.
    pub(crate) async fn dial(&self, own: TcpStream, target: SocketAddr) -> io::Result<Self> {
        match connect(&own, &target) {
            Ok(()) => return self.beside(own),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let leader = Self::watch(
            &self.registration.reactor,
            self.registration.token + 1,
            PolledStream::connecting(own),
        )?;
        leader.when(|watched| watched.has_connected()).await?;
        Ok(leader)
    }

    /// The leader's socket of this client, connected.
    pub(super) fn beside(&self, leader: TcpStream) -> io::Result<Self> {
        Self::watch(
            &self.registration.reactor,
            self.registration.token + 1,
            PolledStream::new(leader),
        )
    }

    /// From now on the socket takes more only while less than `queued` bytes are unsent; `None` leaves that to Linux.
    pub(crate) fn set_most_unsent(&self, queued: Option<u32>) {
        // It fails only for a socket that is gone, which shows soon enough.
        let _gone = socket::set_notsent_lowat(&self.watched.borrow().stream, queued.unwrap_or(0));
    }

    /// What is there to read, at most some KiB; empty at the end. Cancel-safe.
    pub(crate) async fn receive(&self) -> io::Result<Vec<u8>> {
        self.when(|watched| {
            let mut buffer = [0; CHUNK];
            let read = watched.read(|count| count < CHUNK, |stream| Kernel.recv(stream, &mut buffer))?;
            Ok(read.map(|read| buffer[..read].to_vec()))
        })
        .await
    }

    /// Sends all of it. Not cancel-safe: nobody knows how much went.
    pub(crate) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self
                .when(|watched| watched.write(|stream| Kernel.send(stream, bytes)))
                .await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Completes when the peer has closed or reset the connection, whatever lies unread in front of that. Cancel-safe; reads nothing.
    pub(crate) async fn left(&self) {
        // Nothing in it can fail.
        let _left = self.when(|watched| Ok(watched.has_ended().then_some(()))).await;
    }

    /// Sends the FIN; reading goes on.
    pub(crate) fn shut_write(&self) {
        // A peer that is gone needs no FIN.
        let _already_gone = rustix::net::shutdown(&self.watched.borrow().stream, Shutdown::Write);
    }

    /// The own address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.watched.borrow().stream.local_addr()
    }

    /// Blocked for as much news from epoll as `attempt` needs.
    async fn when<T>(&self, mut attempt: impl FnMut(&mut PolledStream) -> io::Result<Option<T>>) -> io::Result<T> {
        poll_fn(|context| {
            let watched = &mut *self.watched.borrow_mut();
            watched.on_event(self.registration.waiting.take());
            match attempt(watched) {
                Ok(Some(done)) => Poll::Ready(Ok(done)),
                Err(error) => Poll::Ready(Err(error)),
                Ok(None) => {
                    watched.update_write_interest(self.registration.reactor.epoll(), self.registration.token)?;
                    self.registration.waiting.wait(context)
                }
            }
        })
        .await
    }

    /// For a pair: where it is in epoll, and what is known of it.
    pub(super) fn into_polled(self) -> (u64, PolledStream) {
        let mut watched = self.watched.into_inner();
        watched.on_event(self.registration.waiting.take());
        (self.registration.token, watched)
    }
}

impl Listener<'_> {
    /// Blocked until there may be a client, and tries to take it. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let waiting = &self.registration.waiting;
        loop {
            poll_fn(|context| {
                if waiting.take().is_empty() {
                    return waiting.wait(context);
                }
                Poll::Ready(())
            })
            .await;
            match accept(self.listener) {
                // Another worker was faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return accepted,
            }
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        // The socket itself stays open, for others.
        let _was_there = epoll::delete(self.registration.reactor.epoll(), self.listener);
    }
}

/// A client that waits already; `WouldBlock` if there is none.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or_else(|| io::Error::other("accept(2) told no address of the client"))?;
    Ok((stream.into(), peer))
}
