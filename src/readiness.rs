//! Whether the outside should send clients here: starting, ready, or shutting down.

use tokio::sync::watch;

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, and what is missing.
    Starting(String),
    /// The listener is bound and a source has answered. Whether there is a leader does not matter: a client is better held than refused.
    Ready,
    /// No longer, because the process is shutting down.
    ShuttingDown,
}

/// A handle to tell, and to read, the readiness. Clones share it. Shutting down is final.
#[derive(Clone, Debug)]
pub struct ReadinessHandle(watch::Sender<Readiness>);

impl ReadinessHandle {
    /// Starting, for the reason given.
    pub fn starting(missing: impl Into<String>) -> Self {
        Self(watch::Sender::new(Readiness::Starting(missing.into())))
    }

    /// The readiness now.
    pub fn now(&self) -> Readiness {
        self.0.borrow().clone()
    }

    /// A source has answered: ready, unless shutting down.
    pub fn ready(&self) {
        self.0.send_if_modified(|now| {
            let starting = matches!(now, Readiness::Starting(_));
            if starting {
                *now = Readiness::Ready;
            }
            starting
        });
    }

    /// Says what is still missing, while starting.
    pub fn missing(&self, what: impl Into<String>) {
        self.0.send_if_modified(|now| match now {
            Readiness::Starting(missing) => {
                *missing = what.into();
                true
            }
            Readiness::Ready | Readiness::ShuttingDown => false,
        });
    }

    /// From now on not ready, for good.
    pub fn shutting_down(&self) {
        self.0.send_replace(Readiness::ShuttingDown);
    }
}
