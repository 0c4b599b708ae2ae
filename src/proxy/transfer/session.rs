//! Forwarded sessions that continue in another process.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::IncompleteTransferError;
use crate::leader::{Address, Host, Server};
use crate::proxy::Shared;
use crate::proxy::forward::{Executor, OnTheWay, Pair, RelayState, SessionCount, Transferred};
use crate::proxy::forwarded::{Admission, Forwarded};
use crate::proxy::record::{PassedRecord, Record};
use crate::slot::Target;

/// A session that no worker runs.
#[derive(Debug)]
pub(super) struct ParkedSession {
    pub(super) worker: usize,
    pub(super) pair: Box<Pair<Forwarded>>,
}

/// A session as it is handed over, without its files and bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct PassedSession {
    /// The kind of the session's route.
    route: String,
    peer: SocketAddr,
    server: PassedServer,
    record: PassedRecord,
    opening: Transferred,
    share: Option<u32>,
    relay: RelayState,
    /// Number of undelivered bytes in memory, to the leader and to the client.
    bytes: [usize; 2],
    files: usize,
}

/// A server as it is handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::proxy) struct PassedServer {
    member: String,
    host: String,
    port: u16,
    timeline: Option<u32>,
}

/// A session with its bytes and files.
#[derive(Debug)]
pub(super) struct CompleteSession {
    passed: PassedSession,
    server: Server,
    streams: (TcpStream, TcpStream),
    on_the_way: [OnTheWay; 2],
}

/// A session of another process that can continue in this process, with its target here.
#[derive(Debug)]
pub(super) struct ResumableSession {
    complete: CompleteSession,
    target: Target,
    shared: Arc<Shared>,
}

impl CompleteSession {
    /// Finds a listener whose route has the session's kind and keeps sessions to its server.
    pub(super) fn place(self, listeners: &[Arc<Shared>]) -> Option<ResumableSession> {
        let of_its_kind = (listeners.iter()).filter(|shared| shared.route.kind.as_str() == self.passed.route);
        let target = |shared: &Arc<Shared>| {
            let snapshot = shared.route.slot.snapshot();
            let target = snapshot.kept().find(|target| *target.server == self.server);
            Some((shared.clone(), target?))
        };
        let (shared, target) = of_its_kind.into_iter().find_map(target)?;
        Some(ResumableSession {
            complete: self,
            target,
            shared,
        })
    }
}

impl ResumableSession {
    /// Begins to forward on the worker with the fewest sessions.
    pub(super) fn begin(self) {
        let workers = self.shared.workers.clone();
        workers.place_session(move |executor, count| self.begin_on(executor, count));
    }

    fn begin_on(self, executor: &Executor<Forwarded>, count: SessionCount) {
        let Self {
            complete,
            target,
            shared,
        } = self;
        let (passed, dependencies) = (complete.passed, &shared.dependencies);
        let leader_side = complete.streams.1.local_addr().ok();
        let owner = Forwarded {
            record: Record::resumed(
                dependencies.clone(),
                &shared.route,
                passed.peer,
                &passed.record,
                (&target.server, leader_side),
            ),
            opening: passed.opening,
            target,
            stays: false,
            _share: shared.buffers.resumed(passed.share),
            _session_permit: shared.session_permits.clone().try_acquire_owned().ok(),
            _admission: Admission {
                connection: shared.connections.admit(),
                count,
            },
            _tracked: dependencies.drain.token(),
        };
        let on_the_way = complete.on_the_way;
        executor.resume(complete.streams, passed.relay, on_the_way, &shared.traffic, owner);
    }
}

impl ParkedSession {
    pub(super) fn put_back(self, shared: &Shared) {
        shared.workers.unpark(self.worker, vec![self.pair]);
    }

    pub(super) fn size(&self) -> (usize, usize) {
        let at_rest = self.pair.relay.at_rest();
        (at_rest.files.len(), at_rest.bytes.iter().map(|bytes| bytes.len()).sum())
    }

    pub(super) fn stay(&mut self) {
        self.pair.owner.stays = true;
    }

    pub(super) fn describe(&self) -> (PassedSession, Vec<u8>, Vec<BorrowedFd<'_>>) {
        let (owner, at_rest) = (&self.pair.owner, self.pair.relay.at_rest());
        let passed = PassedSession {
            route: owner.record.route.as_str().to_owned(),
            peer: owner.record.peer,
            server: PassedServer::new(&owner.target.server),
            record: owner.record.passed(),
            opening: owner.opening,
            share: owner._share.limit(),
            relay: at_rest.state,
            bytes: at_rest.bytes.map(<[u8]>::len),
            files: at_rest.files.len(),
        };
        (passed, at_rest.bytes.concat(), at_rest.files)
    }
}

impl PassedServer {
    pub(in crate::proxy) fn new(server: &Server) -> Self {
        Self {
            member: server.member.to_string(),
            host: match &server.address.host {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.clone(),
            },
            port: server.address.port,
            timeline: server.timeline,
        }
    }

    /// Returns the server; `None` if its address is invalid.
    pub(in crate::proxy) fn resume(&self) -> Option<Server> {
        Some(Server {
            member: self.member.as_str().into(),
            address: Address::new(&self.host, self.port).ok()?,
            timeline: self.timeline,
        })
    }
}

impl PassedSession {
    /// Removes the session's bytes and files from the front of `bytes` and `files`, and adds them to the session.
    pub(super) fn complete(
        self,
        bytes: &mut &[u8],
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<CompleteSession, IncompleteTransferError> {
        let mut file = || {
            files
                .next()
                .ok_or(IncompleteTransferError("a file descriptor is missing"))
        };
        let streams = (TcpStream::from(file()?), TcpStream::from(file()?));
        let mut on_the_way = |filled: usize, count: usize| match filled {
            0 => {
                let (own, rest) = bytes
                    .split_at_checked(count)
                    .ok_or(IncompleteTransferError("bytes are missing"))?;
                *bytes = rest;
                Ok(OnTheWay::Bytes(own.to_vec()))
            }
            filled => Ok(OnTheWay::Pipe(file()?, file()?, filled)),
        };
        let [filled_to_leader, filled_to_client] = self.relay.filled;
        let on_the_way = [
            on_the_way(filled_to_leader, self.bytes[0])?,
            on_the_way(filled_to_client, self.bytes[1])?,
        ];
        let server = (self.server.resume()).ok_or(IncompleteTransferError("the address of its server is invalid"))?;
        Ok(CompleteSession {
            server,
            passed: self,
            streams,
            on_the_way,
        })
    }
}
