//! The settings: flags and environment variables, read once, typed, with all invalid ones reported together.
//!
//! No I/O here: the caller passes arguments and environment, and no file is opened. A new setting has a row in
//! `config/table.rs`, its place in the help in `config/commands.rs`, and a field here with the line that reads it.
//! Everything else follows from the row.

mod commands;
mod invalid;
mod networks;
mod operator;
mod parse;
mod reader;
mod routes;
mod table;
mod values;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use url::Url;

pub use commands::{COMMANDS, CommandRow, command_line, with_flags};
pub use invalid::{InvalidSetting, InvalidSettings};
pub use networks::Network;
pub use operator::OperatorCommand;
pub use parse::LogFilter;
pub use table::Setting;
pub use values::Values;

use crate::route::{Route, RouteKind, Upstream};
use reader::Reader;

/// The default of `--max-sessions`, if open files and local ports suffice.
pub const DEFAULT_SESSIONS: usize = 10_000;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build; "unknown" if neither git nor PGNORTH_COMMIT names one.
pub const COMMIT: &str = env!("PGNORTH_COMMIT");

/// All settings of one start. No value holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The command, with its own settings.
    pub job: Job,
    /// Filter of the log.
    pub log: LogFilter,
    /// Format of the log.
    pub log_format: Format,
    /// The values in force, defaults included, as flags.
    pub in_force: String,
}

/// The command that pgnorth was started with. A new subcommand is an arm here and a row in `config/commands.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// No subcommand: the proxy.
    Proxy(Proxy),
    /// `pgnorth publish`.
    Publish(Publish),
    /// `pgnorth watch`.
    Watch(Watch),
    /// `pgnorth status`.
    Status(Status),
    /// `pgnorth hold`, `pgnorth release`, `pgnorth cut`.
    SendCommand(SendCommand),
    /// `pgnorth reload`.
    Reload(Reload),
    /// `pgnorth doctor`.
    Doctor(Doctor),
}

/// The settings of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The listeners for PostgreSQL clients, and where each leads; never empty.
    pub routes: Vec<Route>,
    /// Networks of load balancers, which send a header of the PROXY protocol.
    pub proxy_protocol: Vec<Network>,
    /// Address of the admin port: probes, metrics, status.
    pub admin: SocketAddr,
    /// Public host names of the admin port.
    pub admin_hosts: Vec<String>,
    /// File of the token for operator commands; none accepts no command.
    pub admin_token_file: Option<PathBuf>,
    /// Sources of discovery.
    pub discovery: DiscoverySettings,
    /// Longest wait of a client for a leader; zero refuses at once.
    pub hold: Duration,
    /// Longest time that an announced switchover holds new clients; zero does not hold them.
    pub switchover_hold: Duration,
    /// Time for which sessions to a leader that released the lock cleanly may continue; zero ends them at once.
    pub failover_drain: Duration,
    /// Deadline of one dial to the leader.
    pub connect_timeout: Duration,
    /// Time without any answer of the leader's host after which a session ends.
    pub tcp_user_timeout: Duration,
    /// Certificate for TLS clients that are refused; none makes one at start.
    pub refusal: Option<Identity>,
    /// Time without any answer of a client's host after which its session ends.
    pub client_tcp_user_timeout: Duration,
    /// Memory in bytes for the kernel's socket buffers of slow clients; zero leaves them to Linux.
    pub socket_buffers: usize,
    /// Local addresses to dial leaders from; empty leaves the choice to the system.
    pub sources: Vec<IpAddr>,
    /// Time that sessions have to finish at shutdown.
    pub drain: Duration,
    /// Time that clients are still accepted at shutdown, before the drain.
    pub lame_duck: Duration,
    /// Limit of open sessions, at least 1; none derives it from open files and local ports.
    pub max_sessions: Option<usize>,
    /// Threads that serve sessions, at least 1; none starts one per core.
    pub workers: Option<usize>,
}

/// The settings of the publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address of the admin port: probes, metrics, status.
    pub admin: SocketAddr,
    /// Public host names of the admin port.
    pub admin_hosts: Vec<String>,
    /// Sources of discovery.
    pub discovery: DiscoverySettings,
    /// Namespace of the Service; none means the pod's own, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Service that points at the primary.
    pub service: String,
    /// Writes its Endpoints too.
    pub endpoints: bool,
    /// Lease that elects the writer; none makes every publisher write.
    pub lease: Option<String>,
}

/// The settings of the watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Address of the admin port: probes, metrics, status.
    pub admin: SocketAddr,
    /// Public host names of the admin port.
    pub admin_hosts: Vec<String>,
    /// Sources of discovery.
    pub discovery: DiscoverySettings,
    /// Longest time that the proxy would hold a new client.
    pub hold: Duration,
    /// Longest time that the proxy would hold new clients for an announced switchover.
    pub switchover_hold: Duration,
    /// HAProxy to compare with; none compares with nothing.
    pub haproxy: Option<Haproxy>,
}

/// A HAProxy to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// Its statistics.
    pub statistics: HaproxyStatistics,
    /// The backend of the primary; none takes the only one with members as servers.
    pub backend: Option<String>,
}

/// The place of HAProxy's statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaproxyStatistics {
    /// http or https, with a host, without user, password and fragment; its path or query ends in `;csv`.
    Http(Box<Url>),
    /// A Unix socket that understands `show stat`.
    Socket(PathBuf),
    /// A file that is written each second.
    File(PathBuf),
}

/// The settings of `pgnorth status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Admin port of the running pgnorth; an unspecified address means this host.
    pub admin: SocketAddr,
    /// Refreshes until interrupted.
    pub watch: bool,
    /// Format of the report.
    pub format: Format,
}

/// The settings of `pgnorth hold`, `release` and `cut`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendCommand {
    /// Admin port of the running pgnorth; an unspecified address means this host.
    pub admin: SocketAddr,
    /// File of its token.
    pub token_file: PathBuf,
    /// The command.
    pub command: OperatorCommand,
}

/// The settings of `pgnorth reload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The process to replace; none looks for it.
    pub pid: Option<u32>,
    /// Flags for the new process with their values, which it checks itself.
    pub flags: Vec<(String, String)>,
}

/// The settings of `pgnorth doctor`: those of the proxy or publisher that it checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// Settings of the proxy, which include those of the publisher.
    pub proxy: Proxy,
    /// Service of the publisher to check, if there is one.
    pub service: Option<String>,
    /// The publisher writes Endpoints too.
    pub endpoints: bool,
    /// Lease of the publisher.
    pub lease: Option<String>,
    /// Format of the report.
    pub format: Format,
}

/// Sources of discovery: `kubernetes` or `etcd`, `patroni`, or two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Scope that members must report for their answers to count; none takes that of the first verified leader.
    pub scope: Option<String>,
    /// The cluster's objects in Kubernetes; none does not use its API.
    pub kubernetes: Option<Kubernetes>,
    /// The cluster's keys in etcd; none does not use it.
    pub etcd: Option<Etcd>,
    /// Base URLs of members' REST API: http or https, with a host, without user, password, path, query or fragment,
    /// each once.
    pub patroni: Vec<Url>,
    /// TLS files for members' REST API.
    pub patroni_tls: ClientTls,
    /// The server of a member that sessions go to.
    pub upstream: Upstream,
}

impl DiscoverySettings {
    /// Returns the Citus group to follow, if the settings have one.
    pub fn citus_group(&self) -> Option<u32> {
        let in_kubernetes = self.kubernetes.as_ref().and_then(|kubernetes| kubernetes.citus_group);
        in_kubernetes.or_else(|| self.etcd.as_ref()?.citus_group)
    }
}

/// Patroni's keys in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Client URLs: http or https, with a host, without user, password, path, query or fragment, each once.
    pub endpoints: Vec<Url>,
    /// `/<namespace>/<scope>/`, with the group of a Citus cluster: every key begins with it.
    pub prefix: String,
    /// Group of a Citus cluster; each group has its own keys.
    pub citus_group: Option<u32>,
    /// User and the file of its password; none does not authenticate.
    pub login: Option<(String, PathBuf)>,
    /// TLS files for etcd.
    pub tls: ClientTls,
}

/// Patroni's objects in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Patroni's scope: the cluster's name and the prefix of its objects' names.
    pub scope: String,
    /// Group of a Citus cluster; each group has its own objects.
    pub citus_group: Option<u32>,
    /// Namespace of the objects; none means the pod's own, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Label selector of the members' pods.
    pub selector: String,
    /// pgnorth's own pod, which Events are about; none writes no Events.
    pub pod: Option<Pod>,
}

impl Kubernetes {
    /// Returns the prefix of the objects' names: the scope, with the group of a Citus cluster (Patroni, kubernetes.py,
    /// `_cluster_from_nodes`).
    pub fn objects(&self) -> String {
        match self.citus_group {
            Some(group) => format!("{}-{group}", self.scope),
            None => self.scope.clone(),
        }
    }

    /// Returns the scope that members report; none if `scope` may be the prefix of a Citus group, `<scope>-<group>`,
    /// which members do not report.
    fn reported_scope(&self) -> Option<String> {
        let last = self.scope.rsplit_once('-').map(|(_, last)| last);
        let may_be_a_group =
            last.is_some_and(|last| !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()));
        (self.citus_group.is_some() || !may_be_a_group).then(|| self.scope.clone())
    }
}

/// The pod that this process runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
}

/// PEM files, opened when a connection needs them; they may not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates that the servers' certificates are checked against; none means the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate for servers that require one.
    pub identity: Option<Identity>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// The error of [`Settings::read`].
#[derive(Debug, Error)]
pub enum SettingsError {
    /// clap's output: help, version, an unknown flag, a flag without its value. It has its own stream and exit status.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// All invalid settings.
    #[error(transparent)]
    Invalid(#[from] InvalidSettings),
}

impl Settings {
    /// Reads the arguments, which begin with the program's name, and the variables through `env`. A flag wins over its
    /// variable, a variable over the default; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`SettingsError::Usage`] for help, version and an unusable command line; otherwise all invalid settings at once.
    pub fn read<A, E>(arguments: A, env: E) -> Result<Self, SettingsError>
    where
        A: IntoIterator<Item = OsString>,
        E: Fn(&str) -> Option<OsString>,
    {
        let matches = command_line().try_get_matches_from(arguments)?;
        let (row, flags) = commands::chosen(&matches);
        let mut reader = Reader::new(flags, &env);
        let job = match row.name {
            Some("publish") => Job::Publish(publish(&mut reader)),
            Some("watch") => Job::Watch(watch(&mut reader)),
            Some("status") => Job::Status(status(&mut reader)),
            Some("hold") => {
                let length = reader.duration(&table::FOR);
                Job::SendCommand(send_command(&mut reader, OperatorCommand::Hold(length)))
            }
            Some("release") => Job::SendCommand(send_command(&mut reader, OperatorCommand::Release)),
            Some("cut") => {
                let member = reader.option(&table::MEMBER, parse::member);
                Job::SendCommand(send_command(&mut reader, OperatorCommand::Cut(member)))
            }
            Some("reload") => Job::Reload(Reload {
                pid: reader.count(&table::PID).and_then(|pid| u32::try_from(pid).ok()),
                flags: commands::for_the_successor(flags),
            }),
            Some("doctor") => Job::Doctor(doctor(&mut reader)),
            _ => Job::Proxy(proxy(&mut reader)),
        };
        let log = reader.value(&table::LOG, LogFilter::parse);
        let log_format = reader.value(&table::LOG_FORMAT, parse::format);
        Ok(Self {
            job,
            log,
            log_format,
            in_force: reader.finish(&row.typed())?,
        })
    }
}

/// Reads the server of a member that sessions go to. Patroni publishes `proxy_url` in its DCS alone.
fn upstream(reader: &mut Reader<'_>, discovery: &DiscoverySettings) -> Upstream {
    let upstream = reader.value(&table::TARGET, parse::upstream);
    if upstream == Upstream::Proxy && discovery.kubernetes.is_none() && discovery.etcd.is_none() {
        let problem = "requires the lock's source, --etcd or Kubernetes: members publish proxy_url there alone; name the \
                       pooler's port instead";
        reader.refuse_if_set(&table::TARGET, problem.to_owned());
    }
    upstream
}

fn proxy(reader: &mut Reader<'_>) -> Proxy {
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    let mut proxy = Proxy {
        routes: routes(reader),
        proxy_protocol: reader
            .option(&table::PROXY_PROTOCOL_FROM, networks::parse)
            .unwrap_or_default(),
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        admin_token_file: reader.option(&table::ADMIN_TOKEN_FILE, parse::file),
        discovery: discovery(reader, namespace, &[&table::NAMESPACE, &table::SELECTOR]),
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
    let all_read = [&table::LISTEN, &table::ROUTE, &table::ADMIN].map(|setting| !reader.has_refused(setting));
    if all_read == [true; 3] {
        refuse_shared_ports(reader, &proxy);
    }
    proxy
}

/// Reads the routes. `--listen` is a route to the primary, and so is its default, unless `--route` or `--ports` has one.
fn routes(reader: &mut Reader<'_>) -> Vec<Route> {
    let mut listed = reader.option(&table::PORTS_PRESET, routes::preset).unwrap_or_default();
    listed.extend(reader.routes(&table::ROUTE));
    let has_primary = listed.iter().any(|route| route.conditions.kind == RouteKind::Primary);
    let short = reader.is_set(&table::LISTEN) || !has_primary;
    let short = short.then(|| routes::to_primary(reader.value(&table::LISTEN, parse::listener)));
    short.into_iter().chain(listed).collect()
}

/// Refuses routes and an admin port that cannot be bound at the same time.
fn refuse_shared_ports(reader: &mut Reader<'_>, proxy: &Proxy) {
    let listen = proxy.routes[0].listen;
    for (place, route) in proxy.routes.iter().enumerate() {
        let earlier = &proxy.routes[..place];
        if let Some(other) = earlier.iter().find(|other| parse::collide(other.listen, route.listen)) {
            let problem = format!("{} and {} use the same port", other.listen, route.listen);
            let given = reader.given(&table::ROUTE);
            reader.refuse(InvalidSetting::of(&table::ROUTE, given.as_ref(), problem));
        }
        if parse::collide(route.listen, proxy.admin) {
            let setting = if route.listen == listen {
                &table::LISTEN
            } else {
                &table::ROUTE
            };
            let problem = format!("--{} ({}) uses the same port", setting.flag, setting.env());
            let given = reader.given(&table::ADMIN);
            reader.refuse(InvalidSetting::of(&table::ADMIN, given.as_ref(), problem));
        }
    }
}

fn publish(reader: &mut Reader<'_>) -> Publish {
    let why = "name the Service that clients connect to; it must not have a selector";
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    Publish {
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        // The Service has a namespace even if Kubernetes is no source of discovery.
        discovery: discovery(reader, namespace.clone(), &[&table::SELECTOR]),
        namespace,
        service: reader.required(&table::SERVICE, why, parse::service),
        endpoints: reader.value(&table::ENDPOINTS, parse::switch),
        lease: reader.option(&table::LEASE, parse::scope),
    }
}

fn watch(reader: &mut Reader<'_>) -> Watch {
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    Watch {
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        discovery: discovery(reader, namespace, &[&table::NAMESPACE, &table::SELECTOR]),
        hold: reader.duration(&table::HOLD),
        switchover_hold: reader.duration(&table::SWITCHOVER_HOLD),
        haproxy: haproxy(reader),
    }
}

fn haproxy(reader: &mut Reader<'_>) -> Option<Haproxy> {
    if !reader.is_set(&table::HAPROXY) {
        let problem = format!("has no effect without --haproxy ({})", table::HAPROXY.env());
        reader.refuse_if_set(&table::HAPROXY_BACKEND, problem);
    }
    let statistics = reader.option(&table::HAPROXY, parse::haproxy);
    let backend = reader.option(&table::HAPROXY_BACKEND, parse::any_scope);
    Some(Haproxy {
        statistics: statistics?,
        backend,
    })
}

fn status(reader: &mut Reader<'_>) -> Status {
    Status {
        admin: reader.value(&table::ADMIN, parse::listener),
        watch: reader.value(&table::WATCH, parse::switch),
        format: reader.value(&table::FORMAT, parse::format),
    }
}

fn send_command(reader: &mut Reader<'_>, command: OperatorCommand) -> SendCommand {
    let why = "name the token file of the running pgnorth";
    SendCommand {
        admin: reader.value(&table::ADMIN, parse::listener),
        token_file: reader.required(&table::ADMIN_TOKEN_FILE, why, parse::file),
        command,
    }
}

fn doctor(reader: &mut Reader<'_>) -> Doctor {
    Doctor {
        proxy: proxy(reader),
        service: reader.option(&table::SERVICE, parse::service),
        endpoints: reader.value(&table::ENDPOINTS, parse::switch),
        lease: reader.option(&table::LEASE, parse::scope),
        format: reader.value(&table::FORMAT, parse::format),
    }
}

/// Reads the sources; `only_with_scope` are settings without effect if there is no scope.
fn discovery(
    reader: &mut Reader<'_>,
    namespace: Option<String>,
    only_with_scope: &[&'static Setting],
) -> DiscoverySettings {
    let wanted = reader.option(&table::KUBERNETES, parse::switch);
    let with_etcd = reader.is_set(&table::ETCD);
    let (scope, kubernetes) = match wanted {
        Some(false) => (scope_without_kubernetes(reader, only_with_scope), None),
        _ if with_etcd => (scope_in_etcd(reader, only_with_scope), None),
        _ => {
            let kubernetes = kubernetes(reader, namespace, only_with_scope);
            (kubernetes.as_ref().and_then(Kubernetes::reported_scope), kubernetes)
        }
    };
    if wanted == Some(true) && !reader.is_set(&table::SCOPE) {
        let problem = format!("requires --scope ({}), the cluster to follow", table::SCOPE.env());
        reader.refuse_if_set(&table::KUBERNETES, problem);
    }
    if wanted == Some(true) && with_etcd {
        let problem = format!(
            "contradicts --etcd ({}): Patroni keeps its lock in one of them",
            table::ETCD.env()
        );
        reader.refuse_if_set(&table::KUBERNETES, problem);
    }
    let discovery = DiscoverySettings {
        etcd: etcd(reader, scope.as_deref()),
        scope,
        kubernetes,
        patroni: reader.option(&table::PATRONI, parse::urls).unwrap_or_default(),
        patroni_tls: patroni_tls(reader),
        upstream: Upstream::default(),
    };
    if !reader.is_set(&table::SCOPE) && !reader.is_set(&table::PATRONI) {
        reader.refuse(InvalidSetting::no_cluster());
    }
    discovery
}

/// Reads the scope without Kubernetes: it only says which answers count.
fn scope_without_kubernetes(reader: &mut Reader<'_>, only_with_scope: &[&'static Setting]) -> Option<String> {
    if reader.is_set(&table::ETCD) {
        return scope_in_etcd(reader, only_with_scope);
    }
    if !reader.is_set(&table::PATRONI) && reader.is_set(&table::SCOPE) {
        let problem = format!(
            "leaves no source of discovery; set --etcd ({}) or --patroni ({}) too",
            table::ETCD.env(),
            table::PATRONI.env()
        );
        reader.refuse_if_set(&table::KUBERNETES, problem);
    }
    for setting in only_with_scope.iter().chain([&&table::CITUS_GROUP]) {
        reader.refuse_if_set(setting, "has no effect with --kubernetes=false".to_owned());
    }
    reader.option(&table::SCOPE, parse::any_scope)
}

/// Reads the scope with etcd, where it is a part of each key.
fn scope_in_etcd(reader: &mut Reader<'_>, only_in_kubernetes: &[&'static Setting]) -> Option<String> {
    for setting in only_in_kubernetes {
        reader.refuse_if_set(setting, "has no effect with --etcd".to_owned());
    }
    let why = "name the cluster; its keys begin with --etcd-namespace and this name";
    Some(reader.required(&table::SCOPE, why, parse::key_part)).filter(|scope| !scope.is_empty())
}

/// Reads the settings of etcd, which have no effect without `--etcd`.
fn etcd(reader: &mut Reader<'_>, scope: Option<&str>) -> Option<Etcd> {
    if !reader.is_set(&table::ETCD) {
        let others = [
            &table::ETCD_NAMESPACE,
            &table::ETCD_USER,
            &table::ETCD_PASSWORD_FILE,
            &table::ETCD_CA,
            &table::ETCD_CERT,
            &table::ETCD_KEY,
        ];
        for setting in others {
            reader.refuse_if_set(setting, format!("has no effect without --etcd ({})", table::ETCD.env()));
        }
        return None;
    }
    let endpoints = reader.option(&table::ETCD, parse::etcd_urls).unwrap_or_default();
    let namespace = reader.value(&table::ETCD_NAMESPACE, parse::key_path);
    let citus_group = reader.option(&table::CITUS_GROUP, parse::group);
    both(reader, &table::ETCD_USER, &table::ETCD_PASSWORD_FILE);
    let user = reader.option(&table::ETCD_USER, parse::any_scope);
    let password_file = reader.option(&table::ETCD_PASSWORD_FILE, parse::file);
    let tls = ClientTls {
        ca: reader.option(&table::ETCD_CA, parse::file),
        identity: identity(reader, &table::ETCD_CERT, &table::ETCD_KEY),
    };
    let group = citus_group.map_or_else(String::new, |group| format!("{group}/"));
    Some(Etcd {
        endpoints,
        prefix: format!("{namespace}/{}/{group}", scope?),
        citus_group,
        login: user.zip(password_file),
        tls,
    })
}

fn kubernetes(
    reader: &mut Reader<'_>,
    namespace: Option<String>,
    only_with_scope: &[&'static Setting],
) -> Option<Kubernetes> {
    let scope = reader.option(&table::SCOPE, parse::scope);
    let selector = reader.option(&table::SELECTOR, parse::selector);
    if !reader.is_set(&table::SCOPE) && reader.is_set(&table::PATRONI) {
        for setting in only_with_scope.iter().chain([&&table::CITUS_GROUP]) {
            let problem = format!(
                "has no effect without --scope ({}), which makes pgnorth read from Kubernetes",
                table::SCOPE.env()
            );
            reader.refuse_if_set(setting, problem);
        }
    }
    let citus_group = reader.option(&table::CITUS_GROUP, parse::group);
    let labels = |scope: &str| match citus_group {
        Some(group) => format!("cluster-name={scope},citus-group={group}"),
        None => format!("cluster-name={scope}"),
    };
    let uid = reader.option(&table::POD_UID, parse::uid);
    let pod = reader
        .option(&table::POD_NAME, parse::scope)
        .map(|name| Pod { name, uid });
    let selector = selector.or_else(|| {
        let default = labels(scope.as_deref()?);
        reader.is_in_force(&table::SELECTOR, &default);
        Some(default)
    });
    scope.zip(selector).map(|(scope, selector)| Kubernetes {
        pod,
        selector,
        citus_group,
        namespace,
        scope,
    })
}

fn patroni_tls(reader: &mut Reader<'_>) -> ClientTls {
    ClientTls {
        ca: reader.option(&table::PATRONI_CA, parse::file),
        identity: identity(reader, &table::PATRONI_CERT, &table::PATRONI_KEY),
    }
}

/// Refuses one of two settings without the other.
fn both(reader: &mut Reader<'_>, first: &'static Setting, second: &'static Setting) {
    for (one, other) in [(first, second), (second, first)] {
        if !reader.is_set(other) {
            let problem = format!("set --{} ({}) too; each requires the other", other.flag, other.env());
            reader.refuse_if_set(one, problem);
        }
    }
}

fn identity(reader: &mut Reader<'_>, cert: &'static Setting, key: &'static Setting) -> Option<Identity> {
    both(reader, cert, key);
    let (cert, key) = (reader.option(cert, parse::file), reader.option(key, parse::file));
    cert.zip(key).map(|(cert, key)| Identity { cert, key })
}

#[cfg(test)]
mod tests;
