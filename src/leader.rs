//! The values that all other modules share (members, addresses, the leader, the routing state), and the pure functions
//! that decide about them.
//!
//! This module does no I/O and reads no clock: times are arguments.

pub mod decide;
pub mod fit;
pub mod identity;
pub mod observation;
pub mod probing;
pub mod reason;
pub mod synchronous;
pub mod view;

mod address;
mod member;

use std::fmt;

pub use address::{Address, BadAddress, BadBaseUrl, BadConnUrl, BaseUrl, Host, UnknownAddress};
pub use member::MemberName;

use crate::route::Upstream;

/// The server of a member that sessions go to: the leader's server or, on a route to other members, another member's
/// server.
///
/// Two servers are equal if member and address are equal, so a new timeline is not a change of leader.
#[derive(Clone, Debug)]
pub struct Server {
    /// The member's name.
    pub member: MemberName,
    /// The address that sessions are forwarded to.
    pub address: Address,
    /// The timeline that the member reported, through its REST API or its status in the DCS; `None` if it is unknown.
    pub timeline: Option<u32>,
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.member == other.member && self.address == other.address
    }
}

impl Eq for Server {}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.member, self.address)
    }
}

/// The current treatment of clients and sessions on routes to the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingState {
    /// New clients go to this leader; sessions to other members end.
    Route(Server),
    /// New clients wait; sessions to this leader stay, and all other sessions end.
    Hold(Option<Server>),
    /// New clients wait; all sessions end, because another member may have been promoted.
    Fence,
}

impl RoutingState {
    /// Returns the state's name in JSON and in a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::Hold(_) => "hold",
            Self::Fence => "fence",
        }
    }

    /// Returns the leader whose sessions are kept.
    pub fn leader(&self) -> Option<&Server> {
        match self {
            Self::Route(leader) => Some(leader),
            Self::Hold(kept) => kept.as_ref(),
            Self::Fence => None,
        }
    }

    /// Returns the leader that new clients may go to.
    pub fn open_to(&self) -> Option<&Server> {
        match self {
            Self::Route(leader) => Some(leader),
            Self::Hold(_) | Self::Fence => None,
        }
    }
}

/// A report from the proxy to discovery that a server failed: it could not be reached, did not accept a client, or lost
/// the connection of a session. On a route to other members, the server may be a replica's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderFailure {
    /// The member whose server failed.
    pub member: MemberName,
    /// The server that failed. A pooler's failure is not evidence about the member.
    pub upstream: Upstream,
    /// The failure, as the end of a sentence, for example "connection refused".
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_timeline_alone_is_the_same_leader() {
        let address = Address::new("10.0.0.7", 5432).unwrap();
        let leader = |timeline| Server {
            member: "pg-0".into(),
            address: address.clone(),
            timeline,
        };
        assert_eq!(leader(Some(1)), leader(Some(2)));
    }
}
