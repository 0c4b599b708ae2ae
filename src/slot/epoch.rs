//! Epochs: the periods in which sessions to one member are kept, the targets that sessions get from them, and their
//! ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ending::Ending;
use crate::leader::Server;

/// The unbroken period in which sessions to one member are kept. A hold that keeps them does not end it.
#[derive(Debug)]
pub(super) struct Epoch {
    end: End,
    /// Number of targets in use, by sessions, dials and cancel requests.
    sessions: AtomicUsize,
    /// Closed when the last target and the last snapshot with this epoch are dropped.
    alive: watch::Sender<()>,
}

/// The end signal of an epoch, and the reason with which it was sent first. Clones share both.
#[derive(Clone, Debug)]
pub struct End {
    ended: CancellationToken,
    why: Arc<OnceLock<Ending>>,
    epoch_ended: watch::Sender<()>,
}

/// The sessions of an epoch that is over. The holder of this value has to end them.
#[derive(Clone, Debug)]
pub struct SessionsToEnd {
    /// The server that the sessions go to.
    pub server: Arc<Server>,
    /// The signal that ends the sessions.
    pub end: End,
    alive: watch::Receiver<()>,
}

/// A server to dial, and the signal that ends every session to it. Both are read together, so there is no race between
/// them.
#[derive(Debug)]
pub struct Target {
    /// The server to dial.
    pub server: Arc<Server>,
    epoch: Arc<Epoch>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.epoch.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    pub(super) fn new(server: Arc<Server>, epoch: Arc<Epoch>) -> Self {
        epoch.sessions.fetch_add(1, Ordering::Relaxed);
        Self { server, epoch }
    }

    /// Completes when sessions to this server must end. Cancel-safe.
    ///
    /// Each call makes a new token: polling a shared token would make all sessions queue for one lock.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.epoch.end.ended.child_token().cancelled_owned()
    }

    /// Returns the reason why sessions must end; `None` while they are kept.
    pub fn ending(&self) -> Option<Ending> {
        self.epoch.end.why.get().copied()
    }
}

impl SessionsToEnd {
    /// Completes when no session of the epoch is left, and no snapshot with this epoch.
    pub async fn done(mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

impl End {
    /// Signals every session of the epoch to end. If this is called again, the first reason stays.
    pub fn now(&self, why: Ending) {
        let _already_ended = self.why.set(why);
        self.ended.cancel();
        self.epoch_ended.send_replace(());
    }
}

impl Epoch {
    /// Begins an epoch whose end is reported through this channel.
    pub(super) fn begin(epoch_ended: &watch::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            end: End {
                ended: CancellationToken::new(),
                why: Arc::default(),
                epoch_ended: epoch_ended.clone(),
            },
            sessions: AtomicUsize::new(0),
            alive: watch::Sender::new(()),
        })
    }

    /// Returns the number of targets in use.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Returns a handle that ends the epoch's sessions, which go to this server.
    pub(super) fn cut(&self, server: Arc<Server>) -> SessionsToEnd {
        SessionsToEnd {
            server,
            end: self.end.clone(),
            alive: self.alive.subscribe(),
        }
    }
}
