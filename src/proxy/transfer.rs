//! Forwarded sessions that go on in another process: taken out of the workers and described by the process that is
//! replaced, and put together again by its successor.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Shared;
use super::forward::{Executor, OnTheWay, Pair, RelayState, SessionCount, Transferred};
use super::forwarded::{Admission, Forwarded};
use super::record::{PassedRecord, Record};
use crate::leader::{Address, Host, Server};
use crate::slot::Target;

/// The version of [`PassedSession`]. Processes of different versions pass no sessions.
pub const SESSION_FORMAT: u32 = 1;

/// The forwarded sessions of this process, once it accepts clients. Clones are handles on the same sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<OnceLock<Vec<Arc<Shared>>>>);

/// A session that no worker runs, until it is put back or dropped. Dropped, it ends for this process alone: another one
/// has its files.
#[derive(Debug)]
pub struct ParkedSession {
    worker: usize,
    pair: Box<Pair<Forwarded>>,
}

/// A session as it is passed, without its files and bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct PassedSession {
    /// The kind of its route.
    route: String,
    peer: SocketAddr,
    member: String,
    host: String,
    port: u16,
    timeline: Option<u32>,
    record: PassedRecord,
    opening: Transferred,
    share: Option<u32>,
    relay: RelayState,
    /// Undelivered bytes in memory, to the leader and to the client.
    bytes: [usize; 2],
    files: usize,
}

/// A session that cannot be put together.
#[derive(Debug, Error)]
#[error("a session that was passed is incomplete: {0}")]
pub struct Incomplete(&'static str);

impl Sessions {
    /// Sets what the sessions of each listener share; once, when they can begin.
    pub(super) fn set(&self, listeners: Vec<Arc<Shared>>) -> Result<(), Vec<Arc<Shared>>> {
        self.0.set(listeners)
    }

    /// Returns what the sessions of the first listener share: all listeners have the same workers.
    fn any(&self) -> Option<&Arc<Shared>> {
        self.0.get()?.first()
    }

    /// Takes out sessions, at most `most` of each worker. Blocks for a moment.
    pub fn park(&self, most: usize) -> Vec<ParkedSession> {
        let Some(shared) = self.any() else {
            return Vec::new();
        };
        let of = |worker| {
            let parked = shared.workers.park(worker, most).into_iter();
            parked.map(move |pair| ParkedSession { worker, pair })
        };
        (0..shared.workers.count()).flat_map(of).collect()
    }

    /// Puts sessions back, which then go on here.
    pub fn put_back(&self, parked: Vec<ParkedSession>) {
        let Some(shared) = self.any() else { return };
        for ParkedSession { worker, pair } in parked {
            shared.workers.unpark(worker, vec![pair]);
        }
    }

    /// Returns the number of clients that are here in any way: forwarded, held, opening, or being refused.
    pub fn clients(&self) -> usize {
        let listeners = self.0.get().map_or(&[][..], |listeners| listeners);
        let clients = |shared: &Arc<Shared>| {
            let accept_loops = shared.workers.count() * listeners.len();
            shared.context.drain.open().saturating_sub(accept_loops)
        };
        listeners.first().map_or(0, clients)
    }

    /// Prepares to go on with sessions of another process, whose bytes and files follow each other in the same order.
    /// Blocks until this process accepts clients.
    ///
    /// # Errors
    /// Returns what is missing. Then no session goes on.
    pub fn resume(&self, passed: Vec<PassedSession>, bytes: &[u8], files: Vec<OwnedFd>) -> Result<Resumed, Incomplete> {
        let (mut bytes, mut files) = (bytes, files.into_iter());
        let listeners = self.0.wait();
        let mut resumed = Resumed::default();
        for (number, passed) in passed.into_iter().enumerate() {
            let complete = passed.complete(&mut bytes, &mut files)?;
            match complete.place(listeners) {
                Some(placed) => resumed.all.push(placed),
                None => resumed.left.push(number),
            }
        }
        Ok(resumed)
    }
}

/// Sessions that are complete and not touched yet.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The numbers of sessions that cannot go on here: their member has no place on a route of their kind.
    pub left: Vec<usize>,
    all: Vec<Placed>,
}

/// A session with its bytes and files.
#[derive(Debug)]
struct Complete {
    passed: PassedSession,
    leader: Server,
    streams: (TcpStream, TcpStream),
    on_the_way: [OnTheWay; 2],
}

/// A session with its target in this process.
#[derive(Debug)]
struct Placed {
    complete: Complete,
    target: Target,
    shared: Arc<Shared>,
}

impl Resumed {
    /// Begins to forward them. From here on, the other process must not.
    pub fn begin(self) {
        for placed in self.all {
            let workers = placed.shared.workers.clone();
            workers.place_session(move |executor, count| placed.begin(executor, count));
        }
    }
}

impl Complete {
    /// Finds a route of the session's kind that keeps sessions to its member.
    fn place(self, listeners: &[Arc<Shared>]) -> Option<Placed> {
        let of_its_kind = (listeners.iter()).filter(|shared| shared.route.kind.as_str() == self.passed.route);
        let target = |shared: &Arc<Shared>| {
            let snapshot = shared.route.slot.snapshot();
            let target = snapshot.kept().find(|target| *target.server == self.leader);
            Some((shared.clone(), target?))
        };
        let (shared, target) = of_its_kind.into_iter().find_map(target)?;
        Some(Placed {
            complete: self,
            target,
            shared,
        })
    }
}

impl Placed {
    fn begin(self, executor: &Executor<Forwarded>, count: SessionCount) {
        let Self {
            complete,
            target,
            shared,
        } = self;
        let (passed, context) = (complete.passed, &shared.context);
        let leader_side = complete.streams.1.local_addr().ok();
        let owner = Forwarded {
            record: Record::resumed(
                context.clone(),
                shared.route.kind,
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
                _count: count,
            },
            _tracked: context.drain.token(),
        };
        let on_the_way = complete.on_the_way;
        executor.resume(complete.streams, passed.relay, on_the_way, &shared.traffic, owner);
    }
}

impl ParkedSession {
    /// Returns the numbers of its files and of its undelivered bytes.
    pub fn size(&self) -> (usize, usize) {
        let at_rest = self.pair.relay.at_rest();
        (at_rest.files.len(), at_rest.bytes.iter().map(|bytes| bytes.len()).sum())
    }

    /// Makes it stay in this process: it is not taken out again.
    pub fn stay(&mut self) {
        self.pair.owner.stays = true;
    }

    /// Returns its description, its undelivered bytes and its files.
    pub fn describe(&self) -> (PassedSession, Vec<u8>, Vec<BorrowedFd<'_>>) {
        let (owner, at_rest) = (&self.pair.owner, self.pair.relay.at_rest());
        let leader = &owner.target.server;
        let passed = PassedSession {
            route: owner.record.route.as_str().to_owned(),
            peer: owner.record.peer,
            member: leader.member.to_string(),
            host: match &leader.address.host {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.clone(),
            },
            port: leader.address.port,
            timeline: leader.timeline,
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

impl PassedSession {
    /// Takes its bytes and files from the front of those that were passed.
    fn complete(self, bytes: &mut &[u8], files: &mut impl Iterator<Item = OwnedFd>) -> Result<Complete, Incomplete> {
        let mut file = || files.next().ok_or(Incomplete("a file is missing"));
        let streams = (TcpStream::from(file()?), TcpStream::from(file()?));
        let mut on_the_way = |filled: usize, count: usize| match filled {
            0 => {
                let (own, rest) = bytes.split_at_checked(count).ok_or(Incomplete("bytes are missing"))?;
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
        let address = Address::new(&self.host, self.port).map_err(|_| Incomplete("its leader has no address"))?;
        Ok(Complete {
            leader: Server {
                member: self.member.as_str().into(),
                address,
                timeline: self.timeline,
            },
            passed: self,
            streams,
            on_the_way,
        })
    }
}
