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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::metrics::Count;
    use crate::proxy::forward::reactor::{Side, Token};
    use crate::proxy::forward::relay::Pipes;

    /// A direction that holds bytes in memory, of which the first two were sent, and one that holds bytes in a pipe.
    fn directions(pipes: &Pipes) -> [Direction; 2] {
        let mut pipe = pipes.take().unwrap();
        rustix::io::write(pipe.input(), b"in a pipe").unwrap();
        pipe.filled = 9;
        [
            Undelivered::Bytes(b"in memory".as_slice().into(), 2),
            Undelivered::Pipe(pipe),
        ]
        .map(direction)
    }

    fn direction(undelivered: Undelivered) -> Direction {
        let mut direction = Direction::default();
        direction.undelivered = undelivered;
        direction
    }

    fn traffic() -> Traffic {
        Traffic {
            pipes: Pipes::default(),
            to_leader: Count::default(),
            to_client: Count::default(),
            client_timeout: std::time::Duration::ZERO,
            leader_timeout: std::time::Duration::ZERO,
            fin_delay: std::time::Duration::ZERO,
        }
    }

    fn streams() -> [PolledStream; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        [Side::Client, Side::Leader].map(|side| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            PolledStream::new(stream, Token::Socket(1, side))
        })
    }

    #[test]
    fn undelivered_bytes_are_handed_over_once() {
        let (traffic, streams) = (traffic(), streams());
        let [to_leader, to_client] = directions(&traffic.pipes);
        let [client, leader] = &streams;
        let at_rest = AtRest::new(
            [client, leader],
            [&to_leader, &to_client],
            &Closing::default(),
            &Stall::default(),
        );
        assert_eq!(at_rest.bytes, [b" memory".as_slice(), b""]);
        assert_eq!(at_rest.state.filled, [0, 9]);
        let Undelivered::Pipe(pipe) = &to_client.undelivered else {
            panic!("the pipe was not taken away");
        };
        let files: Vec<_> = at_rest.files.iter().map(AsRawFd::as_raw_fd).collect();
        let sockets = [client, leader].map(|stream| stream.stream.as_raw_fd());
        let ends = [pipe.input().as_raw_fd(), pipe.output().as_raw_fd()];
        assert_eq!(files, [sockets, ends].concat());
        assert!(!at_rest.state.to_leader.has_undelivered() && !at_rest.state.to_client.has_undelivered());

        let on_the_way = [
            OnTheWay::Bytes(at_rest.bytes[0].to_vec()),
            OnTheWay::Pipe(
                pipe.input().try_clone().unwrap(),
                pipe.output().try_clone().unwrap(),
                at_rest.state.filled[1],
            ),
        ];
        let (to_leader, to_client, ..) = at_rest.state.resume(on_the_way, &traffic);
        assert_eq!(bytes_in_memory(&to_leader), b" memory");
        assert_eq!(filled_pipe(&to_client).unwrap().filled, 9);
    }

    #[test]
    fn a_session_without_undelivered_bytes_has_no_files_but_its_sockets() {
        let (traffic, streams) = (traffic(), streams());
        let [client, leader] = &streams;
        let idle = Direction::default();
        let with_an_empty_pipe = direction(Undelivered::Pipe(traffic.pipes.take().unwrap()));
        let at_rest = AtRest::new(
            [client, leader],
            [&idle, &with_an_empty_pipe],
            &Closing::default(),
            &Stall::default(),
        );
        assert_eq!((at_rest.files.len(), at_rest.state.filled), (2, [0, 0]));
        let nothing = || OnTheWay::Bytes(Vec::new());
        let (to_leader, to_client, ..) = at_rest.state.resume([nothing(), nothing()], &traffic);
        for direction in [to_leader, to_client] {
            assert!(matches!(direction.undelivered, Undelivered::Nothing));
        }
    }
    #[test]
    fn the_progress_of_a_direction_is_handed_over() {
        let progress = serde_json::json!({
            "streaming": true,
            "source_closed": true,
            "ended": true,
            "delivered": 7,
            "delivered_at_check": 3,
        });
        let (traffic, streams) = (traffic(), streams());
        let [client, leader] = &streams;
        let direction: Direction = serde_json::from_value(progress.clone()).unwrap();
        let at_rest = AtRest::new(
            [client, leader],
            [&direction, &direction],
            &Closing::default(),
            &Stall::default(),
        );
        let nothing = || OnTheWay::Bytes(Vec::new());
        let (to_leader, to_client, ..) = at_rest.state.resume([nothing(), nothing()], &traffic);
        for resumed in [to_leader, to_client] {
            assert_eq!(serde_json::to_value(resumed).unwrap(), progress);
        }
    }
}
