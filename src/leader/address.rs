//! The parsed addresses of a member: PostgreSQL's address and the REST API's base URL.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use url::Url;

use crate::leader::MemberName;

/// The address of a member's PostgreSQL or pooler. A host name is resolved at each dial, and never cached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// An IP address, or a DNS name.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// An IP address or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IP address, which is dialled directly.
    Ip(IpAddr),
    /// A DNS name, which is resolved at each dial.
    Name(String),
}

/// A text that is not the address of a PostgreSQL server.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a host and port: {0:?} (examples: 10.0.0.7:5432, [fd00::7]:5432, pg-0.pg:5432)")]
pub struct BadAddress(pub String);

/// The reason why a `conn_url` or `proxy_url` is not usable. Displayed as the end of a sentence about the URL. Never
/// quotes the URL, because it may contain a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadConnUrl {
    /// It cannot be parsed.
    #[error("is not a URL")]
    Malformed,
    /// Its scheme is neither `postgres` nor `postgresql`.
    #[error("is not of the form postgres://host:port/database")]
    Scheme,
    /// It has no host.
    #[error("has no host")]
    NoHost,
    /// Its host or port is invalid.
    #[error("has no valid host and port")]
    BadAddress,
}

/// The reason why the address of a member's server is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnknownAddress {
    /// The pod's `conn_url` is not usable.
    #[error("pod {0}: annotation `status` has a conn_url that {1}")]
    ConnUrl(MemberName, BadConnUrl),
    /// The pod has no `conn_url`, and its IP address is not usable.
    #[error("pod {0}: {1}")]
    PodIp(MemberName, BadAddress),
    /// The pod has neither a `conn_url` nor an IP address.
    #[error("pod {0} has no annotation `status` with a conn_url, and no IP yet")]
    NotInPod(MemberName),
    /// The member has neither a pod nor a key, and its row of `/cluster` has no address.
    #[error("/cluster gives no host and port for member {0}")]
    NotInCluster(MemberName),
    /// The `conn_url` in the member's key is not usable.
    #[error("the key of member {0} in etcd has a conn_url that {1}")]
    KeyConnUrl(MemberName, BadConnUrl),
    /// The member's key has no `conn_url`.
    #[error("the key of member {0} in etcd has no conn_url")]
    NotInKey(MemberName),
    /// Sessions go to the member's pooler, and the member's pod or key has no `proxy_url`.
    #[error(
        "member {0} has published no proxy_url; set postgresql.proxy_address in its Patroni configuration, or use the \
         pooler's port as the target"
    )]
    NoProxyUrl(MemberName),
    /// Sessions go to the member's pooler, and only `/cluster` has this member.
    #[error(
        "the proxy_url of member {0} is unknown: no pod and no key in etcd of this name was found, and /cluster has \
         none"
    )]
    ProxyUrlNotInCluster(MemberName),
    /// The member's `proxy_url` is not usable.
    #[error("member {0} has published a proxy_url that {1}")]
    ProxyUrl(MemberName, BadConnUrl),
    /// Neither a pod, nor a key, nor a row of `/cluster` has this name.
    #[error("neither the DCS nor /cluster has an address of {0}")]
    NoSuchMember(MemberName),
}

/// The scheme, host and port of a member's REST API, without path and credentials: `http://10.0.0.7:8008`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseUrl(Arc<str>);

/// The reason why a text is not the base URL of a REST API. Displayed as the end of a sentence about the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadBaseUrl {
    /// It cannot be parsed.
    #[error("is not a URL")]
    Malformed,
    /// Its scheme is neither `http` nor `https`.
    #[error("is not of the form http://host:port")]
    Scheme,
    /// It has no host.
    #[error("has no host")]
    NoHost,
    /// It has no port.
    #[error("has no port")]
    NoPort,
}

impl Address {
    /// Parses a host in the form of a URL or of `/cluster`: an IPv4 address, an IPv6 address with or without brackets,
    /// or a name.
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

impl BaseUrl {
    /// Parses a URL and drops its path, query and credentials.
    pub fn parse(url: &str) -> Result<Self, BadBaseUrl> {
        let url = Url::parse(url).map_err(|_| BadBaseUrl::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadBaseUrl::Scheme);
        }
        let host = url.host_str().ok_or(BadBaseUrl::NoHost)?;
        let port = url.port_or_known_default().ok_or(BadBaseUrl::NoPort)?;
        Ok(Self(format!("{}://{host}:{port}", url.scheme()).into()))
    }
}

impl Deref for BaseUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", &*self.0)
    }
}

/// Returns true if the text consists of letters, digits, hyphens, dots and underscores (which occur in practice),
/// within the length limits of RFC 1123.
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
    fn an_invalid_host_is_refused() {
        for host in ["", "a b", "a..b", "[fd00::7", "user@host", &"x".repeat(64)] {
            assert!(Address::new(host, 5432).is_err(), "{host:?}");
        }
        assert!(Address::new("10.0.0.7", 0).is_err());
    }
}
