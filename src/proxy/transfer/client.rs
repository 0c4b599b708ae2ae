//! Clients without a session that continue in another process: held clients, and those whose first packet is
//! incomplete.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::IncompleteTransferError;
use crate::ending::Ending;
use crate::proxy::Shared;
use crate::proxy::forward::{Executor, SessionCount};
use crate::proxy::forwarded::{Admission, Forwarded};
use crate::proxy::opening::{Opening, PassedOpening};
use crate::proxy::pending::{ConnectionPermit, Pending};
use crate::proxy::session::{Hold, PassedAttempts, Session};

/// Approximate length of a client's description in JSON, without the text of its last failure.
const DESCRIPTION: usize = 512;

/// A waiting client that no worker runs.
#[derive(Debug)]
pub(in crate::proxy) struct WaitingClient {
    pub(in crate::proxy) stream: TcpStream,
    pub(in crate::proxy) peer: SocketAddr,
    pub(in crate::proxy) shared: Arc<Shared>,
    pub(in crate::proxy) opening: Opening,
    pub(in crate::proxy) connection: ConnectionPermit,
    /// Arrival of the first packet, or of the client if its first packet is incomplete.
    pub(in crate::proxy) since: Instant,
    /// Deadline of the hold, or of the first packet if that is incomplete.
    pub(in crate::proxy) deadline: Instant,
    /// `None` before the first packet is complete.
    pub(in crate::proxy) hold: Option<Hold>,
    pub(in crate::proxy) stays: bool,
    /// Token that makes the drain wait for the client.
    pub(in crate::proxy) tracked: TaskTrackerToken,
}

/// A waiting client that has left its task, with the worker that ran it. It can still continue in this process.
#[derive(Debug)]
pub(in crate::proxy) struct ParkedClient {
    pub(in crate::proxy) client: WaitingClient,
    pub(in crate::proxy) worker: usize,
    pub(in crate::proxy) count: SessionCount,
}

/// A client as it is handed over. `since` is the time since `WaitingClient::since`, and `left` the time until the
/// deadline.
#[derive(Debug, Serialize, Deserialize)]
pub struct PassedClient {
    /// The kind of the client's route.
    route: String,
    peer: SocketAddr,
    since: Duration,
    left: Duration,
    opening: PassedOpening,
    attempts: Option<PassedAttempts>,
    /// Number of bytes that were received from the client and no leader has accepted.
    bytes: usize,
}

/// A client of another process that can continue in this process.
#[derive(Debug)]
pub(super) struct ResumableClient(WaitingClient);

impl WaitingClient {
    /// Makes the client continue in a task of this worker.
    fn go_on(self, executor: &Executor<Forwarded>, count: SessionCount) {
        let dependencies = self.shared.dependencies.clone();
        let client = match executor.socket(self.stream) {
            Ok(client) => client,
            Err(error) => {
                debug!(peer = %self.peer, %error, ending = %Ending::Failed, "connection ended: its socket cannot be added to epoll");
                return dependencies.metrics.ended(Ending::Failed);
            }
        };
        let admission = Admission {
            connection: self.connection,
            count,
        };
        let (peer, shared, executor) = (self.peer, self.shared, executor.clone());
        match self.hold {
            Some(hold) => {
                let session = Session {
                    client,
                    peer,
                    shared,
                    executor: executor.clone(),
                    stays: self.stays,
                };
                executor.spawn(dependencies.drain.track(session.run(self.opening, admission, hold)));
            }
            None => {
                let pending = Pending {
                    client,
                    peer,
                    shared,
                    executor: executor.clone(),
                    since: self.since,
                    deadline: self.deadline,
                    stays: self.stays,
                };
                executor.spawn(dependencies.drain.track(pending.go_on(self.opening, admission)));
            }
        }
        drop(self.tracked);
    }

    /// Reserves the next place in the dial queue for a held client, ahead of every client that comes later.
    fn queue(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.place = Some(self.shared.queue.enqueue());
        }
    }
}

impl ParkedClient {
    pub(in crate::proxy) fn since(&self) -> Instant {
        self.client.since
    }

    /// Makes the client continue in this process. A held client gets the next place in its listener's dial queue.
    pub(in crate::proxy) fn put_back(self) {
        let Self {
            mut client,
            worker,
            count,
        } = self;
        client.queue();
        let workers = client.shared.workers.clone();
        workers.on(worker, move |executor| client.go_on(executor, count));
    }

    pub(super) fn size(&self) -> (usize, usize) {
        let failure = self.client.hold.as_ref().map_or(0, Hold::failure_len);
        (1, self.client.opening.received().len() + failure + DESCRIPTION)
    }

    pub(super) fn stay(&mut self) {
        self.client.stays = true;
    }

    pub(super) fn describe(&self) -> (PassedClient, Vec<u8>, BorrowedFd<'_>) {
        let client = &self.client;
        let received = client.opening.received();
        let passed = PassedClient {
            route: client.shared.route.kind.as_str().to_owned(),
            peer: client.peer,
            since: client.since.elapsed(),
            left: client.deadline.saturating_duration_since(Instant::now()),
            opening: client.opening.passed(),
            attempts: client.hold.as_ref().map(Hold::passed),
            bytes: received.len(),
        };
        (passed, received.to_vec(), client.stream.as_fd())
    }
}

impl PassedClient {
    /// Removes the client's bytes and file from the front of `bytes` and `files`, and restores the client. Returns
    /// `None` if no listener fits it.
    pub(super) fn place(
        self,
        bytes: &mut &[u8],
        files: &mut impl Iterator<Item = OwnedFd>,
        listeners: &[Arc<Shared>],
    ) -> Result<Option<ResumableClient>, IncompleteTransferError> {
        let file = files
            .next()
            .ok_or(IncompleteTransferError("a file descriptor is missing"))?;
        let stream = TcpStream::from(file);
        let (own, rest) = bytes
            .split_at_checked(self.bytes)
            .ok_or(IncompleteTransferError("bytes are missing"))?;
        *bytes = rest;
        let Some(shared) = listener_of(&self.route, &stream, listeners) else {
            return Ok(None);
        };
        let now = Instant::now();
        let (since, deadline) = (now.checked_sub(self.since).unwrap_or(now), now + self.left);
        let hold = (self.attempts).map(|attempts| Hold::resume(attempts, &shared, self.peer, since, deadline));
        Ok(Some(ResumableClient(WaitingClient {
            stream,
            peer: self.peer,
            opening: self.opening.resume(own.to_vec()),
            connection: shared.connections.admit(),
            since,
            deadline,
            hold,
            stays: false,
            tracked: shared.dependencies.drain.token(),
            shared,
        })))
    }
}

/// Returns the state that the sessions of the client's listener share. The listener must have this kind of route and
/// the client's port, because listeners with the same kind may lead to different servers. If none has both, the only
/// listener with this kind fits.
fn listener_of(route: &str, client: &TcpStream, listeners: &[Arc<Shared>]) -> Option<Arc<Shared>> {
    let mut of_its_kind = listeners.iter().filter(|shared| shared.route.kind.as_str() == route);
    let port = client.local_addr().ok()?.port();
    match of_its_kind.clone().find(|shared| shared.port == port) {
        Some(shared) => Some(shared.clone()),
        None => of_its_kind.next().filter(|_| of_its_kind.next().is_none()).cloned(),
    }
}

impl ResumableClient {
    /// Makes the client continue on the worker with the fewest sessions.
    pub(super) fn begin(self) {
        let mut client = self.0;
        client.queue();
        let workers = client.shared.workers.clone();
        workers.place_session(move |executor, count| client.go_on(executor, count));
    }
}
