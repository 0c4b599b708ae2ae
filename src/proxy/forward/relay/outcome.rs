//! The results of relaying: what a pair does next, how it finished, and how many bytes it delivered.

use std::io;
use std::net::TcpStream;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::error::{DirectionError, FailedEnd};
use crate::proxy::forward::reactor::Side;

/// The state of a pair after a run.
#[derive(Debug)]
pub(crate) enum Next {
    /// It waits for an event.
    Wait,
    /// It can continue immediately.
    GoOn,
    Finish(Finish),
}

/// The way in which forwarding finished.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides closed, or the client did not close in time after the leader. This side closed first.
    Closed(Side),
    /// The connection of this side failed, for example by a reset or a timeout.
    Lost(Side, io::Error),
    /// The pair's owner reports that the session is over.
    Stopped,
    /// pgnorth could not continue this connection, for example because it ran out of memory or epoll watches.
    Failed(io::Error),
}

/// A finished pair, as its owner receives it. Its sockets are still open.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: TcpStream,
    pub(crate) leader: TcpStream,
    pub(crate) finish: Finish,
    pub(crate) transferred: Transferred,
    /// The side whose FIN came first, if any came.
    pub(crate) closed_first: Option<Side>,
    /// True if bytes for the client were undelivered: after a FIN, the cut stream would look complete to the client.
    pub(crate) owes_client: bool,
}

/// Bytes delivered in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transferred {
    pub(crate) to_leader: u64,
    pub(crate) to_client: u64,
}

impl AddAssign for Transferred {
    fn add_assign(&mut self, other: Self) {
        self.to_leader += other.to_leader;
        self.to_client += other.to_client;
    }
}

impl Finish {
    /// Returns how a pair finishes after an error of the direction that begins at `source`.
    pub(crate) fn of(error: DirectionError, source: Side) -> Self {
        match error.failed {
            FailedEnd::Source => Self::Lost(source, error.error),
            FailedEnd::Sink => Self::Lost(source.other(), error.error),
            FailedEnd::Internal => Self::Failed(error.error),
        }
    }
}
