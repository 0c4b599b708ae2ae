//! The hand-over of sessions and waiting clients to another process: the replaced process removes them from its workers
//! and describes them; its successor restores them.

mod client;
mod session;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(super) use self::client::{ParkedClient, WaitingClient};
use self::client::{PassedClient, ResumableClient};
pub(super) use self::session::PassedServer;
use self::session::{ParkedSession, PassedSession, ResumableSession};
use super::Shared;

/// The version of the format of [`Passed`]. Processes with different formats hand over neither sessions nor waiting
/// clients.
pub const SESSION_FORMAT: u32 = 2;

/// A handle on the clients of this process. Clones are handles on the same clients.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<OnceLock<Vec<Arc<Shared>>>>);

/// A session or waiting client that no worker runs until it is put back. When this is dropped, this process closes its
/// files; the session or client continues only if another process has copies of them.
#[derive(Debug)]
pub struct Parked(Kind);

#[derive(Debug)]
enum Kind {
    Session(ParkedSession),
    Client(Box<ParkedClient>),
}

/// A session or client as it is handed over, without its files and bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Passed {
    /// A forwarded session.
    Session(PassedSession),
    /// A client that waits for a leader, or whose first packet is incomplete.
    Client(PassedClient),
}

/// The error if a part of a handed-over session or client is missing or invalid.
#[derive(Debug, Error)]
#[error("a handed-over session or client cannot be resumed: {0}")]
pub struct IncompleteTransferError(&'static str);

impl Sessions {
    /// Sets the state that the sessions of each listener share. It can be set only once.
    pub(super) fn set(&self, listeners: Vec<Arc<Shared>>) -> Result<(), Vec<Arc<Shared>>> {
        self.0.set(listeners)
    }

    /// Returns the state that the first listener's sessions share. All listeners have the same workers, departure and
    /// drain. Returns `None` before the workers have started.
    pub(super) fn any(&self) -> Option<&Arc<Shared>> {
        self.0.get()?.first()
    }

    /// Removes and returns the clients that have left their tasks, in the order of arrival, and up to `most` forwarded
    /// sessions of each worker, except those that [`stay`](Parked::stay). Blocks until every worker has answered.
    pub fn park(&self, most: usize) -> Vec<Parked> {
        let Some(shared) = self.any() else {
            return Vec::new();
        };
        let sessions = (0..shared.workers.count()).flat_map(|worker| {
            let parked = shared.workers.park(worker, most).into_iter();
            parked.map(move |pair| Parked(Kind::Session(ParkedSession { worker, pair })))
        });
        self.park_clients().into_iter().chain(sessions).collect()
    }

    /// Removes and returns the clients that have left their tasks, in the order of arrival.
    pub fn park_clients(&self) -> Vec<Parked> {
        let left = self.any().map_or_else(Vec::new, |shared| shared.departure.take());
        left.into_iter().map(Parked::client).collect()
    }

    /// Makes waiting clients leave their tasks, so that they can be parked.
    pub fn let_clients_leave(&self) {
        if let Some(shared) = self.any() {
            shared.departure.open();
        }
    }

    /// Makes waiting clients stay again. Puts back `parked`, and the clients that have left their tasks and were not
    /// parked.
    pub fn keep_clients(&self, mut parked: Vec<Parked>) {
        let left = self.any().map_or_else(Vec::new, |shared| shared.departure.close());
        parked.extend(left.into_iter().map(Parked::client));
        self.put_back(parked);
    }

    /// Returns the number of clients that may leave their tasks and have not yet left.
    pub fn waiting(&self) -> usize {
        self.any().map_or(0, |shared| shared.departure.waiting())
    }

    /// Puts sessions and clients back, so that they continue in this process. Clients keep their order.
    pub fn put_back(&self, mut parked: Vec<Parked>) {
        let Some(shared) = self.any() else { return };
        parked.sort_by_key(Parked::since);
        for Parked(kind) in parked {
            match kind {
                Kind::Session(session) => session.put_back(shared),
                Kind::Client(client) => client.put_back(),
            }
        }
    }

    /// Returns the number of clients of all kinds: forwarded, held, opening, or being refused.
    pub fn clients(&self) -> usize {
        self.any().map_or(0, |shared| shared.dependencies.drain.open())
    }

    /// Restores sessions and clients of another process, without running them. `bytes` and `files` are in the order of
    /// `passed`. Blocks until this process has started its workers.
    ///
    /// # Errors
    /// Returns an error if a part is missing or invalid. In that case, none of them is resumed.
    pub fn resume(
        &self,
        passed: Vec<Passed>,
        bytes: &[u8],
        files: Vec<OwnedFd>,
    ) -> Result<Resumed, IncompleteTransferError> {
        let (mut bytes, mut files) = (bytes, files.into_iter());
        let listeners = self.0.wait();
        let mut resumed = Resumed::default();
        for (number, passed) in passed.into_iter().enumerate() {
            let placed = match passed {
                Passed::Session(session) => {
                    let complete = session.complete(&mut bytes, &mut files)?;
                    complete.place(listeners).map(Resumable::Session)
                }
                Passed::Client(client) => client.place(&mut bytes, &mut files, listeners)?.map(Resumable::Client),
            };
            match placed {
                Some(placed) => resumed.all.push(placed),
                None => resumed.left.push(number),
            }
        }
        Ok(resumed)
    }
}

/// Sessions and clients that are restored and not yet running.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The indexes of those that cannot continue here: no route of the session's kind keeps sessions to its server, or
    /// no listener fits the client.
    pub left: Vec<usize>,
    all: Vec<Resumable>,
}

#[derive(Debug)]
enum Resumable {
    Session(ResumableSession),
    Client(ResumableClient),
}

impl Resumed {
    /// Begins to forward the sessions, and resumes the wait of the clients. From now on, the other process must not run
    /// them.
    pub fn begin(self) {
        for placed in self.all {
            match placed {
                Resumable::Session(session) => session.begin(),
                Resumable::Client(client) => client.begin(),
            }
        }
    }
}

impl Parked {
    fn client(client: ParkedClient) -> Self {
        Self(Kind::Client(Box::new(client)))
    }

    /// Returns the key by which clients are put back in the order of arrival; the order of sessions does not matter.
    fn since(&self) -> Option<tokio::time::Instant> {
        match &self.0 {
            Kind::Session(_) => None,
            Kind::Client(client) => Some(client.since()),
        }
    }

    /// Returns the number of files, and the approximate number of bytes to pass. The description of a session is not
    /// counted.
    pub fn size(&self) -> (usize, usize) {
        match &self.0 {
            Kind::Session(session) => session.size(),
            Kind::Client(client) => client.size(),
        }
    }

    /// Makes the session stay in this process, so that it is not parked again. A client stays until it is forwarded.
    pub fn stay(&mut self) {
        match &mut self.0 {
            Kind::Session(session) => session.stay(),
            Kind::Client(client) => client.stay(),
        }
    }

    /// Returns the description, the undelivered bytes and the files.
    pub fn describe(&self) -> (Passed, Vec<u8>, Vec<BorrowedFd<'_>>) {
        match &self.0 {
            Kind::Session(session) => {
                let (passed, bytes, files) = session.describe();
                (Passed::Session(passed), bytes, files)
            }
            Kind::Client(client) => {
                let (passed, bytes, file) = client.describe();
                (Passed::Client(passed), bytes, vec![file])
            }
        }
    }
}
