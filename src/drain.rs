//! The shutdown of sessions: pgnorth stops accepting, waits for the sessions to finish, and ends the rest by force.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The tracker of all clients and accept loops, through which shutdown ends them. Clones are handles on the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    sessions: TaskTracker,
    accept_loops: TaskTracker,
    stop_accepting: CancellationToken,
    paused: watch::Sender<bool>,
    force: CancellationToken,
    /// Number of clients when they were forced to end.
    forced: Arc<AtomicUsize>,
}

impl Drain {
    /// Makes the drain wait until a client's task has finished or was dropped.
    pub fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.sessions.track_future(task)
    }

    /// Returns a token for a client that has no task. The drain waits until the token is dropped.
    pub fn token(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// Returns a token for an accept loop, which may empty its backlog before it ends. The drain waits until the token
    /// is dropped.
    pub fn accept_loop(&self) -> TaskTrackerToken {
        self.accept_loops.token()
    }

    /// Tells the accept loops to close their listeners.
    pub fn stop_accepting(&self) {
        self.stop_accepting.cancel();
    }

    /// Pauses the accept loops (`true`), because another process accepts clients, or resumes them (`false`).
    pub fn pause_accepting(&self, pause: bool) {
        self.paused.send_replace(pause);
    }

    /// Waits until accepting is to be paused (`true`) or resumed (`false`). Cancel-safe.
    pub async fn accepting_pauses(&self, pause: bool) {
        // This fails only if there is no sender, and `self` has one.
        let mut paused = self.paused.subscribe();
        let _changed = paused.wait_for(|paused| *paused == pause).await;
    }

    /// Returns a token that is cancelled when accepting must stop.
    pub fn accepting_stopped(&self) -> CancellationToken {
        self.stop_accepting.child_token()
    }

    /// Returns a new token that is cancelled when every session must end now.
    pub fn forced(&self) -> CancellationToken {
        self.force.child_token()
    }

    /// Returns true if every session must end now.
    pub fn is_forced(&self) -> bool {
        self.force.is_cancelled()
    }

    /// Returns the number of clients in this process, whether they have a session yet or not.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// Tells every session to end now.
    pub fn force(&self) {
        if !self.is_forced() {
            self.forced.store(self.sessions.len(), Ordering::SeqCst);
        }
        self.force.cancel();
    }

    /// Waits up to `patience` for accept loops and clients to finish, then ends the remaining clients by force and
    /// waits for them. Returns the number of clients that were forced to end, here or by [`force`](Self::force).
    pub async fn finish(&self, patience: Duration) -> usize {
        self.accept_loops.close();
        self.sessions.close();
        if tokio::time::timeout(patience, self.finished()).await.is_err() {
            self.force();
            self.finished().await;
        }
        self.forced.load(Ordering::SeqCst)
    }

    async fn finished(&self) {
        self.accept_loops.wait().await;
        self.sessions.wait().await;
    }
}
