//! The exit of clients that have no session yet and that another process takes over: each client leaves its task at a
//! point where its state can be described.
//!
//! Such a point is a wait for the first packet, for a leader, for a dial permit, or for the next attempt, and a dial
//! that takes long. A client whose first packet has been sent to a leader has no such point: it becomes a session, or
//! waits again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::transfer::ParkedClient;

/// The clients that wait, and those that have left their tasks.
#[derive(Debug)]
pub(super) struct Departure {
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    left: Mutex<Vec<ParkedClient>>,
}

/// A client at a point where it may leave; counted until this is dropped.
#[derive(Debug)]
pub(super) struct Leaves(Arc<Departure>);

impl Departure {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
            left: Mutex::default(),
        })
    }

    /// Makes clients leave their tasks from now on.
    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Makes the remaining clients stay, and returns those that have left since the last [`take`](Self::take).
    pub(super) fn close(&self) -> Vec<ParkedClient> {
        let mut left = self.lock();
        self.open.send_replace(false);
        std::mem::take(&mut left)
    }

    /// Returns the clients that have left their tasks since the last call, in the order of arrival.
    pub(super) fn take(&self) -> Vec<ParkedClient> {
        let mut left = std::mem::take(&mut *self.lock());
        left.sort_by_key(ParkedClient::since);
        left
    }

    /// Returns the number of clients that may leave and have not yet left.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits until clients are to leave. Cancel-safe.
    pub(super) async fn requested(&self) {
        // This fails only if there is no sender, and `self` has one.
        let mut open = self.open.subscribe();
        let _open = open.wait_for(|open| *open).await;
    }

    /// Awaits `wait`, unless the client is to leave before `wait` completes. A client that `stays` does not leave.
    /// Cancel-safe if `wait` is.
    pub(super) async fn unless_requested<T>(
        self: &Arc<Self>,
        stays: bool,
        wait: impl Future<Output = T>,
    ) -> Result<T, Leaves> {
        if stays {
            return Ok(wait.await);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let leaves = Leaves(self.clone());
        if *self.open.borrow() {
            return Err(leaves);
        }
        tokio::select! {
            biased;
            done = wait => Ok(done),
            () = self.requested() => Err(leaves),
        }
    }

    /// Accepts a client that has left its task. If clients no longer leave, this client continues in a new task.
    pub(super) fn park(&self, client: ParkedClient, leaves: Leaves) {
        let mut left = self.lock();
        // Read under the lock: `close` finds every client that came before it.
        let late = match *self.open.borrow() {
            true => {
                left.push(client);
                None
            }
            false => Some(client),
        };
        drop(left);
        drop(leaves);
        if let Some(client) = late {
            client.put_back();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ParkedClient>> {
        // No code under the lock can panic half-way.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
