//! Routes: the members that a listener's clients may reach, and the server of each member. This file has only values:
//! `config/routes.rs` parses them, and `leader/fit` applies them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A listener, and the members that its clients may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Address for PostgreSQL clients.
    pub listen: SocketAddr,
    /// Longest time that a client waits for a fit member; `None` means `--hold`.
    pub hold: Option<Duration>,
    /// Server of a member that its sessions go to; `None` means `--target`.
    pub upstream: Option<Upstream>,
    /// The conditions that a fit member meets.
    pub conditions: Conditions,
}

/// The conditions under which a member is fit for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The kind of members.
    pub kind: RouteKind,
    /// Maximum replay lag of a replica behind the leader, in bytes of WAL.
    pub max_lag: Option<u64>,
    /// True if a replica that exceeds `max_lag` also loses its sessions; otherwise it only gets no new clients.
    pub cut_lagging: bool,
    /// True if a replica has to stream from another member.
    pub streaming: bool,
    /// Tags that a replica must have.
    pub tags: Vec<(String, String)>,
    /// Tags of the replicas that are used first.
    pub prefer: Vec<(String, String)>,
    /// True if the primary gets the route's clients while no replica is fit, or none can be reached.
    pub fallback: bool,
}

impl Conditions {
    /// Returns the default conditions of a route of this kind.
    pub const fn of(kind: RouteKind) -> Self {
        Self {
            kind,
            max_lag: None,
            cut_lagging: false,
            streaming: false,
            tags: Vec::new(),
            prefer: Vec::new(),
            fallback: false,
        }
    }

    /// Returns true if the members themselves have to be asked, because their status in the DCS does not suffice, or
    /// comes too late. `reads_standbys` is true if the DCS says which members are synchronous standbys.
    pub const fn asks_members(&self, reads_standbys: bool) -> bool {
        self.max_lag.is_some() || (self.kind.depends_on_standbys() && !reads_standbys)
    }
}

/// The choice of the server on a member that sessions go to: PostgreSQL, or its pooler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upstream {
    /// PostgreSQL itself, at Patroni's `conn_url`.
    #[default]
    Postgres,
    /// A pooler, at Patroni's `proxy_url`.
    Proxy,
    /// A pooler at this port of PostgreSQL's host.
    Port(u16),
}

impl Upstream {
    /// Returns true if sessions go to a pooler, whose failures are not PostgreSQL's.
    pub fn is_pooler(self) -> bool {
        self != Self::Postgres
    }
}

/// Writes the value of `--target`, and of a route's key `target`.
impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres => out.write_str("postgres"),
            Self::Proxy => out.write_str("proxy"),
            Self::Port(port) => write!(out, "{port}"),
        }
    }
}

/// The kinds of routes, named as in Patroni's REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// The writable primary.
    Primary,
    /// Running replicas.
    Replica,
    /// Running replicas and the primary.
    ReadOnly,
    /// Synchronous standbys.
    Sync,
    /// Replicas that are not synchronous standbys.
    Async,
    /// Synchronous standbys in quorum mode.
    Quorum,
    /// The leader: the primary, or the leader of a standby cluster.
    Leader,
    /// The leader of a standby cluster.
    StandbyLeader,
}

impl RouteKind {
    /// Every kind, in the order of the reference.
    pub const ALL: [Self; 8] = [
        Self::Primary,
        Self::Replica,
        Self::ReadOnly,
        Self::Sync,
        Self::Async,
        Self::Quorum,
        Self::Leader,
        Self::StandbyLeader,
    ];

    /// Returns the name in settings, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::ReadOnly => "read-only",
            Self::Sync => "sync",
            Self::Async => "async",
            Self::Quorum => "quorum",
            Self::Leader => "leader",
            Self::StandbyLeader => "standby-leader",
        }
    }

    /// Returns the kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns the servers that a client of this route could not reach, as the subject of a sentence.
    pub const fn unreached(self) -> &'static str {
        match self {
            Self::Primary => "no primary",
            Self::Replica => "no replica",
            Self::ReadOnly => "neither a replica nor the primary",
            Self::Sync | Self::Quorum => "no synchronous standby",
            Self::Async => "no asynchronous replica",
            Self::Leader => "no leader",
            Self::StandbyLeader => "no standby leader",
        }
    }

    /// Returns the log's term for the server of a session.
    pub const fn server(self) -> &'static str {
        if self.is_for_replicas() {
            "the member"
        } else {
            "the leader"
        }
    }

    /// Returns true if fitness for the route depends on which members are synchronous standbys.
    pub const fn depends_on_standbys(self) -> bool {
        matches!(self, Self::Sync | Self::Async | Self::Quorum)
    }

    /// Returns true if the route leads to replicas, so that conditions on them make sense.
    pub const fn is_for_replicas(self) -> bool {
        !matches!(self, Self::Primary | Self::Leader | Self::StandbyLeader)
    }
}

/// The units of sizes, which are powers of 1024, as in Patroni and PostgreSQL.
pub const UNITS: [(&str, u32); 4] = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10)];

/// Formats a size as in the settings.
pub fn size(bytes: u64) -> String {
    let fitting = UNITS
        .iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match fitting {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
