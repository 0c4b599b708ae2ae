//! The results of relaying: what a pair does next, how it finished, and how many bytes it delivered.

use std::io;
use std::net::TcpStream;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::error::{DirectionError, FailedEnd};
use crate::proxy::forward::reactor::Side;

/// A pair's state after it ran.
#[derive(Debug)]
pub(crate) enum Next {
    /// It waits for an event.
    Wait,
    /// It can go on at once.
    GoOn,
    Finish(Finish),
}

/// The way in which forwarding finished.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides sent a FIN and got every byte; this one closed first.
    Closed(Side),
    /// This side was reset, or vanished.
    Lost(Side, io::Error),
    /// The owner said that the pair is over.
    Stopped,
    /// pgnorth could not go on, for example without memory or epoll watches.
    Failed(io::Error),
}

/// A pair that is given back to its owner; nothing is closed yet.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: TcpStream,
    pub(crate) leader: TcpStream,
    pub(crate) finish: Finish,
    pub(crate) transferred: Transferred,
    /// The side whose FIN came first, if any came.
    pub(crate) closed_first: Option<Side>,
    /// Bytes for the client were undelivered: closing its socket with a FIN would pass a cut stream off as a whole one.
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
    /// Returns what the error of a direction that begins at `source` means for the pair.
    pub(crate) fn of(error: DirectionError, source: Side) -> Self {
        match error.failed {
            FailedEnd::Source => Self::Lost(source, error.error),
            FailedEnd::Sink => Self::Lost(source.other(), error.error),
            FailedEnd::Internal => Self::Failed(error.error),
        }
    }
}
