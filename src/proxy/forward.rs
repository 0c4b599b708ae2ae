//! Forwards bytes both ways between two connected sockets, until both directions have ended, a side is lost or the
//! owner stops it.
//!
//! Three layers, whose imports go downwards only (tests/local/layers.rs checks it, file by file):
//!
//! | layer | owns |
//! |--|--|
//! | [`executor`] | the worker threads, their tasks and mailboxes, and the pairs of each |
//! | [`relay`] | one pair, its two directions, pipes, timers, stalled peers |
//! | [`reactor`] | a worker's epoll, the files in it, sockets and their readiness |
//!
//! The path of a client's socket, from accept(2) to the last byte: [`reactor::Listener`] accepts it. The acceptor's
//! task calls [`Workers::begin_session`], and the chosen worker adds it to its epoll as a [`Socket`]. The session's
//! task reads from it and dials the leader. [`Executor::forward`] turns both sockets into a pair, which
//! `executor/pairs.rs` runs at each event; `relay.rs` runs its two directions, `relay/direction.rs` moves the bytes.
//! At the end, the pair's [`Owner`] gets both sockets back and closes them. This module neither chooses leaders nor
//! observes epochs.

mod executor;
mod reactor;
mod relay;
#[cfg(test)]
mod tests;

pub(crate) use executor::{Executor, Owner, Pair, SessionCount, Workers};
pub(crate) use reactor::{Side, Socket, accept, lack};
pub(crate) use relay::{Finish, Finished, MAX_PIPES, OnTheWay, Pipes, RelayState, Traffic, Transferred};
