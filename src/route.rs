//! Routes: which members the clients of one listener may reach. Values only: `config/routes.rs` parses them, and
//! `leader/fit` applies them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A listener, and the members that its clients may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Address for PostgreSQL clients.
    pub listen: SocketAddr,
    /// Longest wait of a client for a member that is fit; none takes `--hold`.
    pub hold: Option<Duration>,
    /// The members that are fit.
    pub conditions: Conditions,
}

/// The conditions under which a member is fit for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The members in question.
    pub kind: RouteKind,
}

/// The kinds of routes, in Patroni's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// The writable primary.
    Primary,
    /// Running replicas.
    Replica,
    /// Running replicas and the primary.
    ReadOnly,
}

impl RouteKind {
    /// Every kind, in the order of the reference.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Replica, Self::ReadOnly];

    /// Returns the name in settings, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::ReadOnly => "read-only",
        }
    }

    /// Returns the kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns what a client of this route was not connected to, as the subject of a sentence.
    pub const fn unreached(self) -> &'static str {
        match self {
            Self::Primary => "no primary",
            Self::Replica => "no replica",
            Self::ReadOnly => "no replica and no primary",
        }
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
