//! A session that is being forwarded: when it is over, how both sockets are closed, and its ending.

use std::net::TcpStream;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::buffers::Share;
use super::forward::{Finish, Finished, Owner, SessionCount, Side, Transferred};
use super::pending::ConnectionPermit;
use super::record::Record;
use super::{Dependencies, socket};
use crate::ending::Ending;
use crate::leader::{LeaderFailure, Server};
use crate::route::{RouteKind, Upstream};
use crate::slot::Target;

/// The state of a session while it is forwarded. The record is dropped first: observers that wait for the last target
/// or token read the counters afterwards.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) record: Record,
    /// Number of bytes delivered by the opening.
    pub(super) opening: Transferred,
    pub(super) target: Target,
    /// True if the session is not handed over to another process.
    pub(super) stays: bool,
    pub(super) _share: Share,
    /// `None` for a session of another process that was resumed when no permit was free.
    pub(super) _session_permit: Option<OwnedSemaphorePermit>,
    pub(super) _admission: Admission,
    pub(super) _tracked: TaskTrackerToken,
}

/// The permits of a connected client.
#[derive(Debug)]
pub(super) struct Admission {
    /// The permit for the client's connection.
    pub(super) connection: ConnectionPermit,
    /// The client's entry in its worker's session count.
    pub(super) count: SessionCount,
}

/// The way in which a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// A close with FIN: all bytes are delivered, then the peer reads the end of the stream.
    Fin,
    /// A close with RST: unsent bytes are dropped, and the peer gets an error.
    Reset,
}

impl Owner for Forwarded {
    fn is_over(&self) -> bool {
        self.target.ending().is_some() || self.record.dependencies.drain.is_forced()
    }

    fn stays(&self) -> bool {
        self.stays
    }

    fn finished(self, pair: Finished) {
        let (ending, client_close, leader_close) = self.close_plan(&pair);
        match &pair.finish {
            Finish::Lost(Side::Leader, error) if ending == Ending::LeaderLost => {
                let broke = format!("a session lost its connection: {error}");
                let Record {
                    dependencies,
                    route,
                    upstream,
                    ..
                } = &self.record;
                report_failure(dependencies, *route, *upstream, &self.target.server, broke);
            }
            Finish::Failed(error) => debug!(peer = %self.record.peer, %error, "forwarding failed"),
            _ => {}
        }
        close(pair.leader, leader_close);
        close(pair.client, client_close);
        let mut transferred = self.opening;
        transferred += pair.transferred;
        self.record.end(ending, transferred);
    }
}

impl Forwarded {
    /// Returns the ending of the session, and how the client's and the leader's sockets are closed.
    fn close_plan(&self, pair: &Finished) -> (Ending, Close, Close) {
        match pair.finish {
            // The old leader's connection is reset, so that no backend waits to send an answer. The client reads the
            // end of the stream after the bytes delivered to it: a reset could destroy, for example, the confirmation
            // of a commit by the old leader. But if bytes are undelivered, the client gets a reset, because a cut
            // answer would look complete. (If the client is still sending, Linux turns the FIN into a reset.)
            Finish::Stopped => {
                let ending = self.target.ending().unwrap_or(Ending::Shutdown);
                let client_close = if pair.owes_client { Close::Reset } else { Close::Fin };
                (ending, client_close, Close::Reset)
            }
            Finish::Closed(side) => (closed_by(side), Close::Fin, Close::Fin),
            // The session was over when the first side closed. PostgreSQL ends every TLS session with a reset,
            // because it never reads the client's last record; and a client that closed early resets later bytes. The
            // other side gets the reset that it would have got without pgnorth.
            Finish::Lost(..) if let Some(side) = pair.closed_first => (closed_by(side), Close::Reset, Close::Reset),
            Finish::Lost(Side::Client, _) => (Ending::ClientLost, Close::Reset, Close::Reset),
            Finish::Lost(Side::Leader, _) => (Ending::LeaderLost, Close::Reset, Close::Reset),
            Finish::Failed(_) => (Ending::Failed, Close::Reset, Close::Reset),
        }
    }
}

/// Reports a failure of a leader to discovery. A pooler's failure is counted, and reported only if the route may have
/// other members to try first.
pub(super) fn report_failure(
    dependencies: &Dependencies,
    route: RouteKind,
    upstream: Upstream,
    leader: &Server,
    what: String,
) {
    if upstream.is_pooler() {
        dependencies.metrics.pooler_failures(route, upstream).increment(1);
        if route == RouteKind::Primary {
            return;
        }
    }
    let failure = LeaderFailure {
        member: leader.member.clone(),
        upstream,
        what,
    };
    // If the channel is full, discovery has enough reports of the same.
    let _full_is_fine = dependencies.leader_failures.try_send(failure);
}

fn closed_by(side: Side) -> Ending {
    match side {
        Side::Client => Ending::ClientClosed,
        Side::Leader => Ending::LeaderClosed,
    }
}

fn close(stream: TcpStream, how: Close) {
    if how == Close::Reset {
        socket::reset_on_close(&stream);
    }
    drop(stream);
}
