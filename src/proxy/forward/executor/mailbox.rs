//! A worker's interface for other threads: its mailbox, and the count of its sessions.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Wake;

use super::handle::Executor;
use super::pair::{Owner, Pair};
use super::wake_flag::WakeFlag;
use crate::proxy::forward::reactor::{Epoll, Eventfd};

/// A handle on a worker, for any thread.
#[derive(Debug)]
pub(crate) struct WorkerHandle<O> {
    messages: Mutex<Vec<Message<O>>>,
    wake_flag: WakeFlag,
    eventfd: Eventfd,
    sessions: Arc<AtomicUsize>,
}

/// Counts one session of a worker until it is dropped.
#[derive(Debug)]
pub(crate) struct SessionCount(Arc<AtomicUsize>);

/// A function that a worker calls.
pub(crate) type Job<O> = Box<dyn FnOnce(&Executor<O>) + Send>;

pub(crate) enum Message<O> {
    Run(Job<O>),
    /// A request to ask every owner whether its pair is over.
    CheckOwners,
    /// A request to park at most this many pairs, and to send them through the channel.
    Park(usize, Parked<O>),
    /// The last message. The worker then ends as soon as it has no task and no pair.
    Close,
}

/// Channel for the parked pairs of one worker.
pub(crate) type Parked<O> = mpsc::SyncSender<Vec<Box<Pair<O>>>>;

impl<O> WorkerHandle<O> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            wake_flag: WakeFlag::new(),
            eventfd: Eventfd::new()?,
            sessions: Arc::default(),
        })
    }

    /// Makes this epoll report when the worker is woken.
    pub(crate) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        self.eventfd.watch(epoll)
    }

    pub(crate) fn post(&self, message: Message<O>) {
        self.lock().push(message);
        self.set_flag();
    }

    /// Returns the messages since the last call, in order. Only the worker calls this.
    pub(crate) fn take_messages(&self) -> Vec<Message<O>> {
        std::mem::take(&mut *self.lock())
    }

    /// Returns the wake flag. Only the worker calls this.
    pub(crate) fn wake_flag(&self) -> &WakeFlag {
        &self.wake_flag
    }

    pub(crate) fn count_session(&self) -> SessionCount {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        SessionCount(self.sessions.clone())
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    fn set_flag(&self) {
        if self.wake_flag.set() {
            self.eventfd.signal();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message<O>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the worker for its tasks.
impl<O: Owner> Wake for WorkerHandle<O> {
    fn wake(self: Arc<Self>) {
        self.set_flag();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set_flag();
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<O> std::fmt::Debug for Message<O> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Run(_) => "Run",
            Self::CheckOwners => "CheckOwners",
            Self::Park(..) => "Park",
            Self::Close => "Close",
        })
    }
}
