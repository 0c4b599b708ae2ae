//! Requests to shut down: from signals in the pgnorth binary, from a [`ShutdownTrigger`] anywhere else.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::info;

/// Number of requests that may wait; a shutdown has fewer phases.
const CAPACITY: usize = 8;

/// Receiver of requests to shut down. The first request begins the shutdown; each later one ends the current phase
/// early.
#[derive(Debug)]
pub struct Shutdown(mpsc::Receiver<&'static str>);

/// Sender of requests to shut down. Clones share the receiver.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger(mpsc::Sender<&'static str>);

impl Shutdown {
    /// Returns a trigger, and the receiving end for [`serve`](super::serve).
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// Handles the process's signals. Each SIGTERM or SIGINT is a request. SIGHUP calls `reload`, if there is one.
    ///
    /// # Errors
    /// Returns the system's error if a signal handler cannot be installed.
    pub(super) fn on_signals(reload: Option<Reload>) -> io::Result<Self> {
        let mut signals = Signals::new(reload)?;
        let (trigger, shutdown) = Self::new();
        tokio::spawn(async move {
            loop {
                trigger.request(signals.next().await);
            }
        });
        Ok(shutdown)
    }

    /// Waits for the next request and returns its origin. Cancel-safe.
    pub(super) async fn requested(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(by) => by,
            None => pending().await,
        }
    }
}

impl ShutdownTrigger {
    /// Requests a shutdown. The log names `by` as its origin.
    pub fn request(&self, by: &'static str) {
        // A full queue holds more requests than a shutdown has phases.
        let _enough_are_queued = self.0.try_send(by);
    }
}

/// A function that is called at each SIGHUP.
type Reload = Box<dyn Fn() + Send>;

/// The signals that a process of pgnorth handles: SIGTERM (Kubernetes, systemd) and SIGINT (Ctrl-C) request a shutdown.
/// SIGHUP requests a reload of the proxy. SIGUSR1 and SIGUSR2, on which other programs reopen their log, and SIGHUP in
/// other commands are ignored, because their default action would kill the process.
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
    reload: Option<Reload>,
}

impl Signals {
    fn new(reload: Option<Reload>) -> io::Result<Self> {
        Ok(Self {
            reload,
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Waits for the next signal that requests a shutdown, and returns its name. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        loop {
            let [user_1, user_2] = &mut self.user;
            let signal = tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => match &self.reload {
                    Some(reload) => {
                        reload();
                        continue;
                    }
                    None => "SIGHUP",
                },
                _ = user_1.recv() => "SIGUSR1",
                _ = user_2.recv() => "SIGUSR2",
            };
            info!(
                signal,
                "signal ignored: pgnorth takes no action on it, and has no log file to reopen"
            );
        }
    }
}
