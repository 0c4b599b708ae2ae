//! Sessions, and clients that wait for one, that go on in another process: taken out of the workers and described by the
//! process that is replaced, and put together again by its successor.

mod client;
mod session;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(super) use self::client::{ParkedClient, WaitingClient};
use self::client::{PassedClient, PlacedClient};
pub(super) use self::session::PassedServer;
use self::session::{ParkedSession, PassedSession, PlacedSession};
use super::Shared;

/// The version of [`Passed`]. Processes of different versions pass no sessions.
pub const SESSION_FORMAT: u32 = 2;

/// The clients of this process. Clones are handles on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<OnceLock<Vec<Arc<Shared>>>>);

/// A session, or a client that waits for one, that no worker runs, until it is put back or dropped. Dropped, it ends for
/// this process alone: another one has its files.
#[derive(Debug)]
pub struct Parked(Kind);

#[derive(Debug)]
enum Kind {
    Session(ParkedSession),
    Client(Box<ParkedClient>),
}

/// A session or client as it is passed, without its files and bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Passed {
    /// A forwarded session.
    Session(PassedSession),
    /// A client that waits.
    Client(PassedClient),
}

/// A session or client that cannot be put together.
#[derive(Debug, Error)]
#[error("a session that was passed is incomplete: {0}")]
pub struct Incomplete(&'static str);

impl Sessions {
    /// Sets what the sessions of each listener share; once.
    pub(super) fn set(&self, listeners: Vec<Arc<Shared>>) -> Result<(), Vec<Arc<Shared>>> {
        self.0.set(listeners)
    }

    /// Returns what the sessions of the first listener share: all listeners have the same workers.
    fn any(&self) -> Option<&Arc<Shared>> {
        self.0.get()?.first()
    }

    /// Takes out forwarded sessions, at most `most` of each worker, and the clients that have left their tasks, in the
    /// order of arrival. Blocks for a moment.
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

    /// Takes out the clients that have left their tasks, in the order of arrival.
    pub fn park_clients(&self) -> Vec<Parked> {
        let left = self.any().map_or_else(Vec::new, |shared| shared.departure.take());
        left.into_iter().map(Parked::client).collect()
    }

    /// Makes clients that wait leave their tasks, to be taken out.
    pub fn let_clients_leave(&self) {
        if let Some(shared) = self.any() {
            shared.departure.open();
        }
    }

    /// Makes them stay again, and puts back `parked` and those that were not taken out.
    pub fn keep_clients(&self, mut parked: Vec<Parked>) {
        let left = self.any().map_or_else(Vec::new, |shared| shared.departure.close());
        parked.extend(left.into_iter().map(Parked::client));
        self.put_back(parked);
    }

    /// Returns the number of clients that wait and have not left their tasks.
    pub fn waiting(&self) -> usize {
        self.any().map_or(0, |shared| shared.departure.waiting())
    }

    /// Puts sessions and clients back, which then go on here. Clients keep their order.
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

    /// Returns the number of clients that are here in any way: forwarded, held, opening, or being refused.
    pub fn clients(&self) -> usize {
        self.any().map_or(0, |shared| shared.context.drain.open())
    }

    /// Prepares to go on with sessions and clients of another process, whose bytes and files follow each other in the
    /// same order. Blocks until this process has started its workers.
    ///
    /// # Errors
    /// Returns what is missing. Then none of them goes on.
    pub fn resume(&self, passed: Vec<Passed>, bytes: &[u8], files: Vec<OwnedFd>) -> Result<Resumed, Incomplete> {
        let (mut bytes, mut files) = (bytes, files.into_iter());
        let listeners = self.0.wait();
        let mut resumed = Resumed::default();
        for (number, passed) in passed.into_iter().enumerate() {
            let placed = match passed {
                Passed::Session(session) => {
                    let complete = session.complete(&mut bytes, &mut files)?;
                    complete.place(listeners).map(Placed::Session)
                }
                Passed::Client(client) => client.place(&mut bytes, &mut files, listeners)?.map(Placed::Client),
            };
            match placed {
                Some(placed) => resumed.all.push(placed),
                None => resumed.left.push(number),
            }
        }
        Ok(resumed)
    }
}

/// Sessions and clients that are complete and not touched yet.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The numbers of those that cannot go on here: this process has no route of their kind, or the route does not have
    /// the session's member.
    pub left: Vec<usize>,
    all: Vec<Placed>,
}

#[derive(Debug)]
enum Placed {
    Session(PlacedSession),
    Client(PlacedClient),
}

impl Resumed {
    /// Begins to forward them, or to wait for a leader. From here on, the other process must not.
    pub fn begin(self) {
        for placed in self.all {
            match placed {
                Placed::Session(session) => session.begin(),
                Placed::Client(client) => client.begin(),
            }
        }
    }
}

impl Parked {
    fn client(client: ParkedClient) -> Self {
        Self(Kind::Client(Box::new(client)))
    }

    /// Clients are put back in the order of arrival; the order of sessions is of no account.
    fn since(&self) -> Option<tokio::time::Instant> {
        match &self.0 {
            Kind::Session(_) => None,
            Kind::Client(client) => Some(client.since()),
        }
    }

    /// Returns the number of its files, and about that of the bytes in its message.
    pub fn size(&self) -> (usize, usize) {
        match &self.0 {
            Kind::Session(session) => session.size(),
            Kind::Client(client) => client.size(),
        }
    }

    /// Makes it stay in this process: it is not taken out again.
    pub fn stay(&mut self) {
        match &mut self.0 {
            Kind::Session(session) => session.stay(),
            Kind::Client(client) => client.stay(),
        }
    }

    /// Returns its description, its undelivered bytes and its files.
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
