//! Maps the servers of the primary's backend to members of the cluster (pure).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::statistics::HaproxyServer;
use crate::leader::{Address, MemberName};

/// The state of the primary's backend at one reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The members to which HAProxy sends new sessions.
    pub up: BTreeSet<MemberName>,
    /// The open sessions of each member.
    pub sessions: BTreeMap<MemberName, u64>,
}

/// The reason why the primary's backend is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnknownBackend {
    /// The named backend does not exist, or has no servers.
    #[error(
        "HAProxy has no backend {0} with servers; its backends are {1}; correct --haproxy-backend (PGNORTH_HAPROXY_BACKEND)"
    )]
    NotThere(String, String),
    /// No server is a member.
    #[error("no server in HAProxy has the address or the name of a member; HAProxy's backends are {0}")]
    NoneFits(String),
    /// Several backends have members as servers.
    #[error(
        "several backends of HAProxy have members as servers: {0}; name the primary's backend with --haproxy-backend \
         (PGNORTH_HAPROXY_BACKEND)"
    )]
    SeveralFit(String),
}

/// Returns the state of the backend with this name, or of the only one with members as servers. A server that is not
/// a known member keeps its name, because a member that has just died may already be unknown.
pub fn sample(
    servers: &[HaproxyServer],
    backend: Option<&str>,
    members: &[(MemberName, Option<Address>)],
) -> Result<Sample, UnknownBackend> {
    let backend = backend_of_the_primary(servers, backend, members)?;
    let mut sample = Sample::default();
    for server in servers.iter().filter(|server| server.backend == backend) {
        let name = member_of(server, members).cloned();
        let name = name.unwrap_or_else(|| server.name.as_str().into());
        if server.is_up {
            sample.up.insert(name.clone());
        }
        *sample.sessions.entry(name).or_default() += server.sessions;
    }
    Ok(sample)
}

fn backend_of_the_primary<'a>(
    servers: &'a [HaproxyServer],
    named: Option<&'a str>,
    members: &[(MemberName, Option<Address>)],
) -> Result<&'a str, UnknownBackend> {
    let list = |names: BTreeSet<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    };
    let all: BTreeSet<_> = servers.iter().map(|server| server.backend.as_str()).collect();
    if let Some(named) = named {
        return match all.contains(named) {
            true => Ok(named),
            false => Err(UnknownBackend::NotThere(named.to_owned(), list(all))),
        };
    }
    let fitting = servers.iter().filter(|server| member_of(server, members).is_some());
    let fitting: BTreeSet<_> = fitting.map(|server| server.backend.as_str()).collect();
    match (fitting.first(), fitting.len()) {
        (Some(only), 1) => Ok(only),
        (Some(_), _) => Err(UnknownBackend::SeveralFit(list(fitting))),
        (None, _) => Err(UnknownBackend::NoneFits(list(all))),
    }
}

/// Returns the member at the server's address; else the member with the server's name; else the only member on the
/// server's host, because a pooler there may have another port.
fn member_of<'a>(server: &HaproxyServer, members: &'a [(MemberName, Option<Address>)]) -> Option<&'a MemberName> {
    let address = server.address.as_ref();
    let at = |fits: &dyn Fn(&Address) -> bool| {
        let mut all = (members.iter()).filter(|(_, address)| address.as_ref().is_some_and(fits));
        let first = all.next().map(|(name, _)| name);
        first.filter(|_| all.next().is_none())
    };
    let by_address = || at(&|known| Some(known) == address);
    let by_name = || (members.iter().map(|(name, _)| name)).find(|name| name.as_str() == server.name);
    let by_host = || at(&|known| address.is_some_and(|address| address.host == known.host));
    by_address().or_else(by_name).or_else(by_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(backend: &str, name: &str, is_up: bool, sessions: u64, address: Option<(&str, u16)>) -> HaproxyServer {
        HaproxyServer {
            backend: backend.to_owned(),
            name: name.to_owned(),
            is_up,
            sessions,
            address: address.map(|(host, port)| Address::new(host, port).unwrap()),
        }
    }

    fn members() -> [(MemberName, Option<Address>); 2] {
        [
            ("a".into(), Some(Address::new("10.0.0.1", 5432).unwrap())),
            ("b".into(), Some(Address::new("10.0.0.2", 5432).unwrap())),
        ]
    }

    #[test]
    fn a_server_is_the_member_at_its_address_whatever_it_is_called() {
        for (server, member) in [
            (server("p", "b", true, 1, Some(("10.0.0.1", 5432))), "a"),
            (server("p", "pg1", true, 1, Some(("10.0.0.2", 5432))), "b"),
            (server("p", "b", true, 1, None), "b"),
            (server("p", "pooler", true, 1, Some(("10.0.0.1", 6432))), "a"),
            (server("p", "stranger", true, 1, Some(("10.9.9.9", 5432))), "stranger"),
        ] {
            let sample = sample(std::slice::from_ref(&server), Some("p"), &members()).unwrap();
            assert_eq!(sample.up, BTreeSet::from([member.into()]), "{server:?}");
            assert_eq!(sample.sessions, BTreeMap::from([(member.into(), 1)]));
        }
    }

    #[test]
    fn the_backend_is_the_named_one_or_the_only_one_with_members() {
        let primary = server("primary", "a", true, 1, None);
        let replicas = server("replicas", "b", true, 2, None);
        let web = server("web", "web1", true, 9, None);
        let up = |servers: &[HaproxyServer], backend| sample(servers, backend, &members()).map(|sample| sample.up);
        let of = |member: &str| Ok(BTreeSet::from([member.into()]));
        assert_eq!(up(&[primary.clone(), web.clone()], None), of("a"));
        assert_eq!(up(&[primary.clone(), replicas.clone()], Some("replicas")), of("b"));
        let names = |names: &str| names.to_owned();
        assert_eq!(
            up(&[primary.clone(), replicas], None),
            Err(UnknownBackend::SeveralFit(names("primary, replicas")))
        );
        assert_eq!(up(&[web], None), Err(UnknownBackend::NoneFits(names("web"))));
        assert_eq!(
            up(&[primary], Some("master")),
            Err(UnknownBackend::NotThere(names("master"), names("primary")))
        );
    }
}
