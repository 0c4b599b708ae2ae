//! The identifier of a file in a worker's epoll, and its encoding in the 64 bits that epoll stores.

use serde::{Deserialize, Serialize};

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    /// The client that connected to pgnorth.
    Client,
    /// The PostgreSQL server that pgnorth connected to.
    Leader,
}

/// The identifier of a file in a worker's epoll. A worker gives each session and each listener a different number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// One of the two sockets of the session with this number.
    Socket(u64, Side),
    /// A listening socket.
    Listener(u64),
    /// The eventfd by which other threads wake the worker.
    Eventfd,
    /// The worker's timer.
    Timer,
}

/// Number of low bits that hold the kind of file. The bits above them hold the number.
const KIND_BITS: u32 = 2;
const CLIENT: u64 = 0;
const LEADER: u64 = 1;
const LISTENER: u64 = 2;
const OWN: u64 = 3;

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Leader,
            Self::Leader => Self::Client,
        }
    }
}

impl Token {
    pub(crate) fn encode(self) -> u64 {
        let (number, kind) = match self {
            Self::Socket(number, Side::Client) => (number, CLIENT),
            Self::Socket(number, Side::Leader) => (number, LEADER),
            Self::Listener(number) => (number, LISTENER),
            Self::Eventfd => (0, OWN),
            Self::Timer => (1, OWN),
        };
        number << KIND_BITS | kind
    }

    /// Reverses [`encode`](Self::encode).
    pub(crate) fn decode(bits: u64) -> Self {
        let number = bits >> KIND_BITS;
        match bits & ((1 << KIND_BITS) - 1) {
            CLIENT => Self::Socket(number, Side::Client),
            LEADER => Self::Socket(number, Side::Leader),
            LISTENER => Self::Listener(number),
            _ if number == 0 => Self::Eventfd,
            _ => Self::Timer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_epoll() {
        let numbered = [0, 1, 2, 3, u64::MAX >> KIND_BITS].into_iter().flat_map(|number| {
            [
                Token::Socket(number, Side::Client),
                Token::Socket(number, Side::Leader),
                Token::Listener(number),
            ]
        });
        let all: Vec<_> = numbered.chain([Token::Eventfd, Token::Timer]).collect();
        for token in &all {
            assert_eq!(Token::decode(token.encode()), *token);
        }
        let distinct: std::collections::HashSet<_> = all.iter().map(|token| token.encode()).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
