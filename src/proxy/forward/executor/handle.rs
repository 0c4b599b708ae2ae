//! A worker's interface for its tasks: they start other tasks, open sockets, and begin to forward sessions.
//!
//! The opening of a session is async and may use tokio's timers and channels, but its sockets are in the worker's epoll
//! from the beginning: when the leader has accepted the client, they stay where they are.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;

use futures_util::FutureExt;

use super::pair::Pair;
use crate::proxy::forward::reactor::{Listener, PolledStream, Reactor, Side, Socket, Token};
use crate::proxy::forward::relay::{OnTheWay, Relay, RelayState, Traffic};

pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A handle on the worker that runs the current task. Clones are handles on the same worker.
pub(crate) struct Executor<O> {
    number: usize,
    reactor: Reactor,
    incoming: Rc<Incoming<O>>,
}

/// The tasks and pairs that the worker has not fetched yet.
struct Incoming<O> {
    tasks: RefCell<Vec<Task>>,
    pairs: RefCell<Vec<Pair<O>>>,
}

impl<O> Clone for Executor<O> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            reactor: self.reactor.clone(),
            incoming: self.incoming.clone(),
        }
    }
}

impl<O> Executor<O> {
    pub(crate) fn new(number: usize, reactor: Reactor) -> Self {
        let incoming = Incoming {
            tasks: RefCell::default(),
            pairs: RefCell::default(),
        };
        Self {
            number,
            reactor,
            incoming: Rc::new(incoming),
        }
    }

    /// Returns the worker's index among all workers.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Starts a task on this worker. A task that panics is dropped, and the worker continues.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = AssertUnwindSafe(task).catch_unwind();
        self.incoming.tasks.borrow_mut().push(Box::pin(task.map(drop)));
    }

    /// Makes the worker forward between these two sockets, until both directions have ended, a side is lost or `owner`
    /// stops it.
    pub(crate) fn forward(&self, client: Socket, leader: Socket, owner: O) {
        self.incoming.pairs.borrow_mut().push(Pair::new(client, leader, owner));
    }

    /// Resumes a parked pair of this worker.
    pub(crate) fn unpark(&self, mut pair: Pair<O>) {
        pair.unpark(self.reactor.epoll());
        self.incoming.pairs.borrow_mut().push(pair);
    }

    /// Resumes a pair of another process.
    pub(crate) fn resume(
        &self,
        (client, leader): (TcpStream, TcpStream),
        state: RelayState,
        on_the_way: [OnTheWay; 2],
        traffic: &Traffic,
        owner: O,
    ) {
        let number = self.reactor.next_number();
        let polled = |stream, side| PolledStream::new(stream, Token::Socket(number, side));
        let streams = [polled(client, Side::Client), polled(leader, Side::Leader)];
        let relay = Relay::resumed(streams, state.resume(on_the_way, traffic));
        self.unpark(Pair::resumed(number, relay, owner));
    }

    /// Adds a client's stream, which must be connected and non-blocking, to the worker's epoll.
    pub(crate) fn socket(&self, stream: TcpStream) -> io::Result<Socket> {
        Socket::of_client(stream, &self.reactor)
    }

    /// Adds `listener`, which must be non-blocking, to the worker's epoll. A client wakes at least one of the workers
    /// that wait, and usually not all of them.
    pub(crate) fn listen<'a>(&self, listener: &'a TcpListener) -> io::Result<Listener<'a>> {
        Listener::new(listener, &self.reactor)
    }

    /// Returns the tasks that were started since the last call.
    pub(crate) fn take_tasks(&self) -> Vec<Task> {
        self.incoming.tasks.take()
    }

    /// Returns the pairs that were begun, put back or resumed since the last call.
    pub(crate) fn take_pairs(&self) -> Vec<Pair<O>> {
        self.incoming.pairs.take()
    }
}
