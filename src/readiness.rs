//! The readiness that `/readyz` reports: starting, ready, or shutting down.

use tokio::sync::watch;

/// The readiness of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready yet; the text names what is missing.
    Starting(String),
    /// The listener is bound and a source has answered. No leader is needed, because holding a client is better than
    /// refusing it.
    Ready,
    /// Not ready any more, because the process is shutting down.
    ShuttingDown,
}

/// A handle to set and read the readiness. Clones share it. Shutting down is final.
#[derive(Clone, Debug)]
pub struct ReadinessHandle(watch::Sender<Readiness>);

impl ReadinessHandle {
    /// Returns a handle that is not ready for this reason.
    pub fn starting(missing: impl Into<String>) -> Self {
        Self(watch::Sender::new(Readiness::Starting(missing.into())))
    }

    /// Returns the readiness now.
    pub fn now(&self) -> Readiness {
        self.0.borrow().clone()
    }

    /// Marks the process as ready, unless it is shutting down.
    pub fn ready(&self) {
        self.0.send_if_modified(|now| {
            let starting = matches!(now, Readiness::Starting(_));
            if starting {
                *now = Readiness::Ready;
            }
            starting
        });
    }

    /// Sets what is missing, if the process is still starting.
    pub fn missing(&self, what: impl Into<String>) {
        self.0.send_if_modified(|now| match now {
            Readiness::Starting(missing) => {
                *missing = what.into();
                true
            }
            Readiness::Ready | Readiness::ShuttingDown => false,
        });
    }

    /// Marks the process as shutting down, which is final.
    pub fn shutting_down(&self) {
        self.0.send_replace(Readiness::ShuttingDown);
    }
}
