//! The resulting routes, by cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Outcome::{self, NoEquivalent, Setting};
use super::lines::Line;
use super::sections::Backend;
use super::suggestion::{Suggestion, problem_of};

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    clusters: Vec<Cluster>,
}

/// The servers and routes of one cluster, as far as the servers' addresses show.
#[derive(Debug, Default)]
struct Cluster {
    urls: Vec<String>,
    routes: Vec<Route>,
}

/// A listener, and the part of its `--route` after the `=`.
#[derive(Clone, Debug)]
struct Route {
    at: usize,
    listen: SocketAddr,
    leads_to: String,
}

impl Cluster {
    fn and(mut self, other: Self) -> Self {
        let new: Vec<_> = other.urls.into_iter().filter(|url| !self.urls.contains(url)).collect();
        self.urls.extend(new);
        self.routes.extend(other.routes);
        self
    }
}

impl Route {
    /// Returns true if this route listens on all IPv4 addresses and `other` on all IPv6 addresses, with the same port
    /// and for the same members: pgnorth's `[::]` includes both.
    fn is_ipv4_of(&self, other: &Self) -> bool {
        let listens = [self.listen, other.listen].map(|listen| listen.ip());
        listens == [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)]
            && self.listen.port() == other.listen.port()
            && self.leads_to == other.leads_to
    }

    fn setting(&self) -> (&'static str, String) {
        ("route", format!("{}={}", self.listen, self.leads_to))
    }
}

impl Routes {
    /// Adds a route for the listener, if pgnorth can listen there in addition to the others.
    pub(super) fn add(&mut self, at: usize, listen: SocketAddr, backend: &Backend, lines: &[Line]) -> Outcome {
        let route = Route {
            at,
            listen,
            leads_to: backend.leads_to(),
        };
        if let Some(earlier) = self.all().find(|earlier| earlier.is_ipv4_of(&route)) {
            let number = lines[earlier.at].number;
            earlier.listen = listen;
            let (_, setting) = earlier.setting();
            return Setting(format!(
                "--route {setting}, which includes the IPv4 address of line {number}"
            ));
        }
        let settings: Vec<_> = self
            .all()
            .map(|route| route.setting())
            .chain([route.setting()])
            .collect();
        if let Some(problem) = problem_of(&settings) {
            return NoEquivalent(format!("bind {listen}: {problem}"));
        }
        let (_, setting) = route.setting();
        let cluster = Cluster {
            urls: backend.urls(),
            routes: vec![route],
        };
        let shares = |other: &mut Cluster| other.urls.iter().any(|url| cluster.urls.contains(url));
        let same: Vec<_> = self.clusters.extract_if(.., shares).collect();
        self.clusters
            .extend(same.into_iter().chain([cluster]).reduce(Cluster::and));
        Setting(format!("--route {setting}"))
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Route> {
        self.clusters.iter_mut().flat_map(|cluster| &mut cluster.routes)
    }

    /// Returns the settings for each cluster, with those that all share.
    pub(super) fn suggestions(self, shared: &[(&'static str, String)]) -> Vec<Suggestion> {
        let suggestion = |cluster: Cluster| {
            let mut settings: Vec<_> = cluster.routes.iter().map(Route::setting).collect();
            settings.push(("patroni", cluster.urls.join(",")));
            settings.extend_from_slice(shared);
            Suggestion { settings }
        };
        self.clusters.into_iter().map(suggestion).collect()
    }
}

/// Parses one address of `bind`. Names are not resolved.
pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    let (text, is_v6) = match (text.strip_prefix("ipv6@"), text.strip_prefix("ipv4@")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => (text, false),
    };
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.contains(['/', '@'])) else {
        return Err("pgnorth listens on an IP address and a port".to_owned());
    };
    let port: u16 = port
        .parse()
        .map_err(|_| "not a single port; write a --route for each port".to_owned())?;
    let ip = match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "*" if is_v6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        "" | "*" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        host => host
            .parse()
            .map_err(|_| "names are not accepted: write the IP address".to_owned())?,
    };
    Ok(SocketAddr::new(ip, port))
}
