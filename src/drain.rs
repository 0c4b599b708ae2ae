//! Shutdown of the traffic side: stop accepting, wait for the sessions, force what is left.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Sessions run only through this; it is how shutdown finds them. Clones are handles on the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    sessions: TaskTracker,
    stop_accepting: CancellationToken,
    force: CancellationToken,
}

impl Drain {
    /// Starts a session on the current runtime.
    pub fn spawn<F>(&self, session: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.sessions.spawn(session);
    }

    /// A task that the drain waits for, as it does for sessions.
    pub fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.sessions.track_future(task)
    }

    /// For a session that is no task: the drain waits until the token is dropped.
    pub fn token(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// Tells the accept loops to close their listeners.
    pub fn stop_accepting(&self) {
        self.stop_accepting.cancel();
    }

    /// A token that is cancelled when accepting must stop.
    pub fn accepting_stopped(&self) -> CancellationToken {
        self.stop_accepting.child_token()
    }

    /// A token of its own for each session, cancelled when the session must end now.
    pub fn forced(&self) -> CancellationToken {
        self.force.child_token()
    }

    /// Whether every session must end now.
    pub fn is_forced(&self) -> bool {
        self.force.is_cancelled()
    }

    /// Tells every session to end now.
    pub fn force(&self) {
        self.force.cancel();
    }

    /// Waits for the sessions to finish, at most `patience`, then ends what is left and waits for that. Returns how many were ended by force.
    pub async fn finish(&self, patience: Duration) -> usize {
        self.sessions.close();
        if tokio::time::timeout(patience, self.sessions.wait()).await.is_ok() {
            return 0;
        }
        let left = self.sessions.len();
        self.force();
        self.sessions.wait().await;
        left
    }
}
