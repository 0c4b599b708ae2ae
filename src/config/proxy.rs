//! Reads the settings of the proxy, and rejects listeners that cannot be bound at the same time.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::sources::{DiscoverySettings, discovery};
use super::tls::{Identity, identity};
use super::{InvalidSetting, Network, Setting, networks, parse, routes, table};
use crate::route::{Route, RouteKind, Upstream};

/// The settings of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The routes: listeners for PostgreSQL clients, each with the members that it leads to; never empty.
    pub routes: Vec<Route>,
    /// Networks of load balancers that send a PROXY protocol header.
    pub proxy_protocol: Vec<Network>,
    /// Address of the admin port: probes, metrics, status.
    pub admin: SocketAddr,
    /// Public host names of the admin port.
    pub admin_hosts: Vec<String>,
    /// File with the token for operator commands; without one, no command is accepted.
    pub admin_token_file: Option<PathBuf>,
    /// Sources of discovery.
    pub discovery: DiscoverySettings,
    /// Longest wait of a client for a leader or a fit replica; zero refuses the client immediately.
    pub hold: Duration,
    /// Longest time that an announced switchover holds new clients; zero does not hold them.
    pub switchover_hold: Duration,
    /// Time for which sessions to a leader that released the lock cleanly may continue; zero ends them immediately.
    pub failover_drain: Duration,
    /// Deadline of one dial to a member.
    pub connect_timeout: Duration,
    /// Time without an answer from the member's host after which a session ends.
    pub tcp_user_timeout: Duration,
    /// Certificate for TLS clients that are refused; by default, one made at start.
    pub refusal: Option<Identity>,
    /// Time without an answer from a client's host after which its session ends.
    pub client_tcp_user_timeout: Duration,
    /// Memory in bytes for the kernel's socket buffers of slow clients; zero leaves them to Linux.
    pub socket_buffers: usize,
    /// Local addresses to dial members from; empty leaves the choice to the system.
    pub sources: Vec<IpAddr>,
    /// Time for sessions to finish at shutdown.
    pub drain: Duration,
    /// Time for which clients are still accepted at shutdown, before the drain.
    pub lame_duck: Duration,
    /// Limit of open sessions, at least 1; by default, it follows from open files and local ports.
    pub max_sessions: Option<usize>,
    /// Threads that serve sessions, at least 1; by default, one per core.
    pub workers: Option<usize>,
}

impl Proxy {
    /// Returns the servers of a member that sessions of any route go to, each once.
    pub fn upstreams(&self) -> Vec<Upstream> {
        let mut all = Vec::new();
        for route in &self.routes {
            let upstream = route.upstream.unwrap_or(self.discovery.upstream);
            if !all.contains(&upstream) {
                all.push(upstream);
            }
        }
        all
    }
}

/// The problem with Patroni's `proxy_url` if no source reads the DCS: Patroni publishes it only there.
const UNPUBLISHED: &str = "requires --etcd or Kubernetes, the only places where members publish proxy_url; \
                           otherwise set the pooler's port";

/// Reads the choice of the server on a member that sessions go to: PostgreSQL, or its pooler.
pub(super) fn upstream(reader: &mut Reader<'_>, discovery: &DiscoverySettings) -> Upstream {
    let upstream = reader.value(&table::TARGET, parse::upstream);
    if upstream == Upstream::Proxy && !discovery.reads_dcs() {
        reader.refuse_if_set(&table::TARGET, UNPUBLISHED.to_owned());
    }
    upstream
}

/// Rejects routes to poolers whose address no source reads.
fn refuse_unpublished_targets(reader: &mut Reader<'_>, proxy: &Proxy) {
    if proxy.discovery.reads_dcs() {
        return;
    }
    let mistakes = routes::unpublished(&proxy.routes, UNPUBLISHED);
    if let Some(given) = reader.given(&table::ROUTE).filter(|_| !mistakes.is_empty()) {
        reader.refuse(InvalidSetting::of_routes(&table::ROUTE, &given, mistakes));
    }
}

pub(super) fn proxy(reader: &mut Reader<'_>) -> Proxy {
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    proxy_in(reader, namespace, &[&table::NAMESPACE, &table::SELECTOR])
}

/// Reads the settings of the proxy. `only_with_scope` are the settings that have no effect unless Kubernetes is a
/// source.
pub(super) fn proxy_in(
    reader: &mut Reader<'_>,
    namespace: Option<String>,
    only_with_scope: &[&'static Setting],
) -> Proxy {
    let (routes, origins): (Vec<_>, Vec<_>) = routes(reader).into_iter().unzip();
    let mut proxy = Proxy {
        routes,
        proxy_protocol: reader
            .option(&table::PROXY_PROTOCOL_FROM, networks::parse)
            .unwrap_or_default(),
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        admin_token_file: reader.option(&table::ADMIN_TOKEN_FILE, parse::file),
        discovery: discovery(reader, namespace, only_with_scope),
        hold: reader.duration(&table::HOLD),
        switchover_hold: reader.duration(&table::SWITCHOVER_HOLD),
        failover_drain: reader.duration(&table::FAILOVER_DRAIN),
        connect_timeout: reader.duration(&table::CONNECT_TIMEOUT),
        tcp_user_timeout: reader.duration(&table::TCP_USER_TIMEOUT),
        refusal: identity(reader, &table::REFUSAL_CERT, &table::REFUSAL_KEY),
        client_tcp_user_timeout: reader.duration(&table::CLIENT_TCP_USER_TIMEOUT),
        socket_buffers: reader.size(&table::SOCKET_BUFFERS),
        sources: reader.option(&table::SOURCE, parse::addresses).unwrap_or_default(),
        drain: reader.duration(&table::DRAIN),
        lame_duck: reader.duration(&table::LAME_DUCK),
        max_sessions: reader.count(&table::MAX_SESSIONS),
        workers: reader.count(&table::WORKERS),
    };
    proxy.discovery.upstream = upstream(reader, &proxy.discovery);
    refuse_unpublished_targets(reader, &proxy);
    let all_read = [&table::LISTEN, &table::ROUTE, &table::ADMIN].map(|setting| !reader.has_refused(setting));
    if all_read == [true; 3] {
        refuse_shared_ports(reader, &proxy, &origins);
    }
    proxy
}

/// Reads the routes, each with its setting. `--listen` is a route to the primary; its default applies if `--route` and
/// `--ports` have no such route.
fn routes(reader: &mut Reader<'_>) -> Vec<(Route, &'static Setting)> {
    let preset = reader.option(&table::PORTS_PRESET, routes::preset).unwrap_or_default();
    let mut listed: Vec<_> = preset.into_iter().map(|route| (route, &table::PORTS_PRESET)).collect();
    let given = reader.routes(&table::ROUTE).into_iter();
    listed.extend(given.map(|route| (route, &table::ROUTE)));
    let is_to_primary = |(route, _): &(Route, _)| route.conditions.kind == RouteKind::Primary;
    let has_primary = listed.iter().any(is_to_primary);
    let short = reader.is_set(&table::LISTEN) || !has_primary;
    let short = short.then(|| routes::to_primary(reader.value(&table::LISTEN, parse::listener)));
    let short = short.into_iter().map(|route| (route, &table::LISTEN));
    short.chain(listed).collect()
}

/// Rejects routes and an admin port that cannot be bound at the same time. `origins` has the setting of each route.
fn refuse_shared_ports(reader: &mut Reader<'_>, proxy: &Proxy, origins: &[&'static Setting]) {
    let routes: Vec<_> = proxy.routes.iter().zip(origins.iter().copied()).collect();
    for (place, (route, origin)) in routes.iter().enumerate() {
        let mut earlier = routes[..place].iter();
        if let Some((other, others)) = earlier.find(|(other, _)| parse::collide(other.listen, route.listen)) {
            // The ports of a preset are fixed, so the other setting is the one to change.
            let (wrong, setting, right, of) = match origin.flag == table::PORTS_PRESET.flag {
                true => (other, *others, route, *origin),
                false => (route, *origin, other, *others),
            };
            let problem = match setting.flag == of.flag {
                true => format!("{} and {} use the same port", right.listen, wrong.listen),
                false => {
                    let (wrong, right, of) = (wrong.listen, right.listen, of.flag_and_variable());
                    format!("{wrong} uses the same port as {right} of {of}")
                }
            };
            let given = reader.given(setting);
            reader.refuse(InvalidSetting::of(setting, given.as_ref(), problem));
        }
        if parse::collide(route.listen, proxy.admin) {
            let problem = format!("{} uses the same port", origin.flag_and_variable());
            let given = reader.given(&table::ADMIN);
            reader.refuse(InvalidSetting::of(&table::ADMIN, given.as_ref(), problem));
        }
    }
}
