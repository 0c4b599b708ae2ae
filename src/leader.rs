//! The values that everything else speaks of: who leads, at which address, and what is to be done about it.
//!
//! No I/O and no clock here: times enter as arguments.

pub mod decide;
pub mod identity;
pub mod observation;
pub mod probing;
pub mod reason;
pub mod view;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;
use url::Url;

/// Where a member's PostgreSQL listens. A host name stays a name: it is resolved at each dial and never remembered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// An IP address, or a DNS name.
    pub host: Host,
    /// TCP port.
    pub port: u16,
}

/// An IP address or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// Dialled as it is.
    Ip(IpAddr),
    /// Resolved at each dial.
    Name(String),
}

/// A text that is no address of a PostgreSQL server.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a host and port: {0:?} (good: 10.0.0.7:5432, [fd00::7]:5432, pg-0.pg:5432)")]
pub struct BadAddress(pub String);

/// The member that the lock names, at the address where its PostgreSQL listens.
///
/// Two leaders are equal when member and address are: that alone decides whether anything changed. The timeline tells one promotion from another.
#[derive(Clone, Debug)]
pub struct Leader {
    /// Patroni's member name (in Kubernetes the pod's name).
    pub member: String,
    /// Where sessions are forwarded to.
    pub address: Address,
    /// The timeline that its REST API reported, when it was verified that way.
    pub timeline: Option<u32>,
}

impl Address {
    /// From a host as it stands in a URL or in `/cluster`: an IPv4 address, an IPv6 address with or without brackets, or a name.
    pub fn new(host: &str, port: u16) -> Result<Self, BadAddress> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let host = match IpAddr::from_str(bare) {
            Ok(ip) => Host::Ip(ip),
            Err(_) if is_dns_name(bare) => Host::Name(bare.to_ascii_lowercase()),
            Err(_) => return Err(BadAddress(format!("{host}:{port}"))),
        };
        if port == 0 {
            return Err(BadAddress(format!("{bare}:0")));
        }
        Ok(Self { host, port })
    }
}

/// Scheme, host and port of a URL of Patroni's REST API, without path and credentials: `http://10.0.0.7:8008`.
pub fn base_url(api_url: &str) -> Result<String, &'static str> {
    let url = Url::parse(api_url).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is not of the form http://host:port");
    }
    let host = url.host_str().ok_or("names no host")?;
    let port = url.port_or_known_default().ok_or("names no port")?;
    Ok(format!("{}://{host}:{port}", url.scheme()))
}

/// Letters, digits, hyphens, underscores (seen in the field) and dots; RFC 1123's lengths.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(out, "[{ip}]:{}", self.port),
            Host::Ip(ip) => write!(out, "{ip}:{}", self.port),
            Host::Name(name) => write!(out, "{name}:{}", self.port),
        }
    }
}

impl PartialEq for Leader {
    fn eq(&self, other: &Self) -> bool {
        self.member == other.member && self.address == other.address
    }
}

impl Eq for Leader {}

impl fmt::Display for Leader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.member, self.address)
    }
}

/// What is to be done with clients and sessions now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingState {
    /// New clients go to this leader; sessions to any other end.
    Route(Leader),
    /// New clients wait; sessions to this leader stay, any other end.
    Hold(Option<Leader>),
    /// New clients wait; every session ends, because another member may be promoted by now.
    Fence,
}

impl RoutingState {
    /// Its word, in JSON and as a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::Hold(_) => "hold",
            Self::Fence => "fence",
        }
    }

    /// The leader whose sessions may live.
    pub fn leader(&self) -> Option<&Leader> {
        match self {
            Self::Route(leader) => Some(leader),
            Self::Hold(kept) => kept.as_ref(),
            Self::Fence => None,
        }
    }

    /// The leader that new clients may go to.
    pub fn open_to(&self) -> Option<&Leader> {
        match self {
            Self::Route(leader) => Some(leader),
            Self::Hold(_) | Self::Fence => None,
        }
    }
}

/// What the proxy tells discovery: a leader that it was sent to does not behave like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderFailure {
    /// Whom it concerns.
    pub member: String,
    /// What happened, as a sentence's end: "connection refused".
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_dialled() {
        for (host, port, printed) in [
            ("10.0.0.7", 5432, "10.0.0.7:5432"),
            ("fd00::7", 5432, "[fd00::7]:5432"),
            ("[fd00::7]", 5433, "[fd00::7]:5433"),
            ("Pg-0.pg.default.svc", 5432, "pg-0.pg.default.svc:5432"),
        ] {
            assert_eq!(Address::new(host, port).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "a b", "a..b", "[fd00::7", "user@host", &"x".repeat(64)] {
            assert!(Address::new(host, 5432).is_err(), "{host:?}");
        }
        assert!(Address::new("10.0.0.7", 0).is_err());
    }

    #[test]
    fn a_new_timeline_alone_is_the_same_leader() {
        let address = Address::new("10.0.0.7", 5432).unwrap();
        let leader = |timeline| Leader {
            member: "pg-0".into(),
            address: address.clone(),
            timeline,
        };
        assert_eq!(leader(Some(1)), leader(Some(2)));
    }
}
