//! A pair at rest, as it is handed over to another process: its undelivered bytes, and the progress of its closing.
//!
//! The kernel keeps the rest with the sockets: unread and unsent bytes, FINs, options.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::closing::Closing;
use super::context::Traffic;
use super::direction::Direction;
use super::pipes::{Pipe, PipeFds};
use super::stall::Stall;
use super::undelivered::Undelivered;
use crate::proxy::forward::reactor::PolledStream;

/// The state of a pair without its files and undelivered bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RelayState {
    to_leader: Direction,
    to_client: Direction,
    closing: Closing,
    stall: Stall,
    /// Number of bytes in the pipe of each direction; zero without a pipe.
    pub(crate) filled: [usize; 2],
}

/// A pair at rest. Its arrays have the direction to the leader first, and then the direction to the client.
#[derive(Debug)]
pub(crate) struct AtRest<'a> {
    pub(crate) state: RelayState,
    /// The undelivered bytes in memory.
    pub(crate) bytes: [&'a [u8]; 2],
    /// The client's socket, the leader's socket, and the pipes that hold bytes, each input before its output.
    pub(crate) files: Vec<BorrowedFd<'a>>,
}

/// The bytes of one direction that were read from one side and not yet accepted by the other.
#[derive(Debug)]
pub(crate) enum OnTheWay {
    Bytes(Vec<u8>),
    /// Both ends of a pipe, and the number of bytes in it.
    Pipe(OwnedFd, OwnedFd, usize),
}

impl<'a> AtRest<'a> {
    pub(crate) fn new(
        streams: [&'a PolledStream; 2],
        [to_leader, to_client]: [&'a Direction; 2],
        closing: &Closing,
        stall: &Stall,
    ) -> Self {
        let pipes = [to_leader, to_client].into_iter().filter_map(filled_pipe);
        let pipes = pipes.flat_map(|pipe| [pipe.input().as_fd(), pipe.output().as_fd()]);
        Self {
            state: RelayState {
                to_leader: to_leader.without_bytes(),
                to_client: to_client.without_bytes(),
                closing: closing.clone(),
                stall: stall.clone(),
                filled: [to_leader, to_client].map(|direction| filled_pipe(direction).map_or(0, |pipe| pipe.filled)),
            },
            bytes: [to_leader, to_client].map(bytes_in_memory),
            files: streams
                .map(|stream| stream.stream.as_fd())
                .into_iter()
                .chain(pipes)
                .collect(),
        }
    }
}

impl RelayState {
    /// Returns the parts of a pair in this state.
    pub(crate) fn resume(
        self,
        [to_leader, to_client]: [OnTheWay; 2],
        traffic: &Traffic,
    ) -> (Direction, Direction, Closing, Stall) {
        let with_bytes = |mut direction: Direction, on_the_way: OnTheWay| {
            direction.undelivered = on_the_way.into_undelivered(traffic);
            direction
        };
        let to_leader = with_bytes(self.to_leader, to_leader);
        let to_client = with_bytes(self.to_client, to_client);
        (to_leader, to_client, self.closing, self.stall)
    }
}

impl OnTheWay {
    fn into_undelivered(self, traffic: &Traffic) -> Undelivered {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => Undelivered::Nothing,
            Self::Bytes(bytes) => Undelivered::Bytes(bytes.into_boxed_slice(), 0),
            Self::Pipe(input, output, filled) => {
                Undelivered::Pipe(traffic.pipes.adopt(PipeFds::new(input, output), filled))
            }
        }
    }
}

fn bytes_in_memory(direction: &Direction) -> &[u8] {
    match &direction.undelivered {
        Undelivered::Bytes(bytes, sent) => &bytes[*sent..],
        Undelivered::Nothing | Undelivered::Pipe(_) => &[],
    }
}

fn filled_pipe(direction: &Direction) -> Option<&Pipe> {
    match &direction.undelivered {
        Undelivered::Pipe(pipe) if pipe.filled > 0 => Some(pipe),
        _ => None,
    }
}
