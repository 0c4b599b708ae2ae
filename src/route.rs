//! Routes: which members the clients of one listener may reach, and which of a member's servers. Values only:
//! `config/routes.rs` parses them, and `leader/fit` applies them.

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
    /// Server of a member that its sessions go to; none takes that of `--target`.
    pub upstream: Option<Upstream>,
    /// The members that are fit.
    pub conditions: Conditions,
}

/// The conditions under which a member is fit for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The members in question.
    pub kind: RouteKind,
    /// Most bytes of WAL that a replica's replay may be behind the leader.
    pub max_lag: Option<u64>,
    /// Sessions to a replica that lags too far end; otherwise it only gets no new clients.
    pub cut_lagging: bool,
    /// A replica has to stream from another member.
    pub streaming: bool,
    /// Tags that a replica must have.
    pub tags: Vec<(String, String)>,
    /// Tags of the replicas that come first.
    pub prefer: Vec<(String, String)>,
    /// The primary gets the clients while no replica takes them.
    pub fallback: bool,
}

impl Conditions {
    /// Returns the conditions of a route without keys.
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

/// The server of a member that sessions go to.
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

/// The value of `--target`, and of a route's key `target`.
impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres => out.write_str("postgres"),
            Self::Proxy => out.write_str("proxy"),
            Self::Port(port) => write!(out, "{port}"),
        }
    }
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
    /// Synchronous standbys.
    Sync,
    /// Replicas that are no synchronous standbys.
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

    /// Returns the kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns the server that a client of this route did not get, as the subject of a sentence.
    pub const fn unreached(self) -> &'static str {
        match self {
            Self::Primary => "no primary",
            Self::Replica => "no replica",
            Self::ReadOnly => "no replica and no primary",
            Self::Sync | Self::Quorum => "no synchronous standby",
            Self::Async => "no asynchronous replica",
            Self::Leader => "no leader",
            Self::StandbyLeader => "no leader of a standby cluster",
        }
    }

    /// Returns the name of the sessions' other side, for the log.
    pub const fn server(self) -> &'static str {
        if self.is_for_replicas() {
            "the member"
        } else {
            "the leader"
        }
    }

    /// Returns true if it depends on which members are synchronous standbys.
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

/// Returns a size as the settings write it.
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
