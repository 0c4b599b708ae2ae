//! Bytes both ways between two connected sockets, until both directions ended or one side broke.
//!
//! tokio decides, workers move bytes: a connected pair is handed to one of a few threads, each with an epoll of its own, and stays there. A worker knows
//! nothing of leaders or terms. It asks the pair's [`Owner`] whether the pair is over, and gives the sockets back to it at the end.

mod calls;
mod flow;
mod inbox;
mod pipes;
mod relay;
mod stall;
#[cfg(test)]
mod tests;
mod watched;
mod worker;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
// The inbox names it through here: tests/inbox.rs puts a model checker's in its place.
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;

use calls::{Calls, Kernel};
pub(crate) use pipes::{MAX_PIPES, Pipes};
use worker::{Mailbox, Pair, Worker};

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to pgnorth.
    Client,
    /// Whom pgnorth connected to.
    Leader,
}

/// How forwarding came to its end.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides sent a FIN and got every byte; this one closed first.
    Closed(Side),
    /// This side was reset, or vanished.
    Lost(Side, io::Error),
    /// The owner said that the pair is over.
    Stopped,
    /// pgnorth could not go on (out of memory, or of epoll watches).
    Failed(io::Error),
}

/// What all pairs share: the pool of pipes, the counters, and the patience with a silent peer.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Where streaming directions get their pipes from.
    pub(crate) pipes: Pipes,
    /// Bytes delivered to the leader.
    pub(crate) to_leader: IntCounter,
    /// Bytes delivered to the client.
    pub(crate) to_client: IntCounter,
    /// TCP_USER_TIMEOUT of both sockets, as it was set on them.
    pub(crate) user_timeout: Duration,
}

/// Whose pair it is.
pub(crate) trait Owner: Send + 'static {
    /// Whether forwarding must stop. Asked when the pair is handed over, and after each [`Workers::look`].
    fn is_over(&self) -> bool;

    /// Forwarding has come to its end. Runs on the worker, so it must not block.
    fn finished(self, pair: Finished);
}

/// A pair that its owner gets back; nothing is closed yet.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: TcpStream,
    pub(crate) leader: TcpStream,
    pub(crate) finish: Finish,
    /// Bytes delivered to the leader, and to the client.
    pub(crate) moved: (u64, u64),
    /// Whose FIN came first, if any has come.
    pub(crate) closed_first: Option<Side>,
    /// Bytes for the client were still in hand: closing it with a FIN would pass a cut stream off as a whole one.
    pub(crate) owes_client: bool,
}

/// The threads that move bytes. Dropped, they end when their last pair has.
#[derive(Debug)]
pub(crate) struct Workers<O: Owner> {
    workers: Vec<Arc<Desk<O>>>,
}

/// What is seen of a worker from outside.
#[derive(Debug)]
struct Desk<O> {
    mailbox: Mailbox<O>,
    /// The next pair's number.
    next: AtomicU64,
    /// Pairs that it has, or that are on the way to it.
    pairs: AtomicUsize,
}

/// What a worker is told.
#[derive(Debug)]
enum Message<O> {
    /// A pair by its number.
    Adopt(u64, Box<Pair<O>>),
    /// Ask every owner whether its pair is over.
    Look,
    /// Nothing more will come.
    Close,
}

impl<O: Owner> Workers<O> {
    /// Starts `count` threads. Each receiver gets its error when that thread broke down, which only a defect can make it do.
    pub(crate) fn start(count: usize, traffic: &Arc<Traffic>) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        Self::start_with(count, traffic, || Box::new(Kernel))
    }

    fn start_with(
        count: usize,
        traffic: &Arc<Traffic>,
        calls: impl Fn() -> Box<dyn Calls>,
    ) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        let mut started = (Self { workers: Vec::new() }, Vec::new());
        for number in 0..count {
            let desk = Arc::new(Desk {
                mailbox: Mailbox::new()?,
                next: AtomicU64::new(0),
                pairs: AtomicUsize::new(0),
            });
            let worker = Worker::new(desk.clone(), traffic.clone(), calls())?;
            let (ended, end) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("forward-{number}"))
                .spawn(move || {
                    worker.run();
                    let _nobody_waits_any_more = ended.send(());
                })?;
            started.0.workers.push(desk);
            started.1.push(end);
        }
        Ok(started)
    }

    /// Hands a connected pair to the worker that has the fewest. Both sockets must be non-blocking.
    pub(crate) fn adopt(&self, client: TcpStream, leader: TcpStream, owner: O) {
        let least = self
            .workers
            .iter()
            .min_by_key(|desk| desk.pairs.load(Ordering::Relaxed));
        if let Some(desk) = least {
            desk.adopt(Pair::new(client, leader, owner));
        }
    }

    /// How many pairs each worker has.
    #[cfg(test)]
    fn pairs(&self) -> Vec<usize> {
        let pairs = self.workers.iter().map(|desk| desk.pairs.load(Ordering::Relaxed));
        pairs.collect()
    }

    /// Makes every worker ask each owner whether its pair is over, before it moves another byte.
    pub(crate) fn look(&self) {
        for desk in &self.workers {
            desk.mailbox.post(Message::Look);
        }
    }
}

impl<O: Owner> Desk<O> {
    fn adopt(&self, pair: Pair<O>) {
        self.pairs.fetch_add(1, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.mailbox.post(Message::Adopt(number, Box::new(pair)));
    }
}

impl<O: Owner> Drop for Workers<O> {
    fn drop(&mut self) {
        for desk in &self.workers {
            desk.mailbox.post(Message::Close);
        }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Leader,
            Self::Leader => Self::Client,
        }
    }
}
