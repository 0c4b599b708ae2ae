//! The settings: flags and environment variables, read once, typed, all mistakes reported together.
//!
//! No I/O here: arguments and environment are given, files are only named. Defaults, help and names stand in `config/table.rs`, one row a setting.

mod commands;
mod mistake;
mod operator;
mod parse;
mod reader;
mod table;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use url::Url;

pub use mistake::{Mistake, Mistakes};
pub use operator::OperatorCommand;
pub use parse::LogFilter;

use reader::Reader;

const HOUR: Duration = Duration::from_secs(3600);
/// More sessions than a process may have files.
const SESSIONS: usize = 1_000_000;
/// More threads than a host has cores.
const WORKERS: usize = 1024;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this build was made from; "unknown" where there was no telling.
pub const COMMIT: &str = env!("PGNORTH_COMMIT");

/// Everything that can be set. No value holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What this process does.
    pub job: Job,
    /// What is logged.
    pub log: LogFilter,
    /// How it is logged.
    pub log_format: Format,
}

/// What pgnorth was started as, each with its own settings. Another subcommand is another arm here, and a row in `config/commands.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// No subcommand: the proxy.
    Proxy(Proxy),
    /// `pgnorth publish`.
    Publish(Publish),
    /// `pgnorth status`.
    Status(Status),
    /// `pgnorth hold`, `pgnorth release`, `pgnorth cut`.
    SendCommand(SendCommand),
    /// `pgnorth doctor`.
    Doctor(Doctor),
}

/// The settings of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where PostgreSQL clients connect.
    pub listen: SocketAddr,
    /// Where probes, metrics and the status are served.
    pub admin: SocketAddr,
    /// Public names by which the admin port is reached.
    pub admin_hosts: Vec<String>,
    /// Holds the token for operators' orders; `None`: nobody can give any.
    pub admin_token_file: Option<PathBuf>,
    /// How the leader is found.
    pub finding: Finding,
    /// How long a client waits for a leader. Zero: not at all.
    pub hold: Duration,
    /// How long an announced switchover may hold new clients. Zero: not at all.
    pub switchover_hold: Duration,
    /// How long sessions may go on to a leader that gave the lock up cleanly. Zero: they end at once.
    pub failover_drain: Duration,
    /// Deadline of one dial to the leader.
    pub connect_timeout: Duration,
    /// How long the leader's host may be silent.
    pub tcp_user_timeout: Duration,
    /// What TLS clients see that are refused; `None`: a certificate made at start.
    pub refusal: Option<Identity>,
    /// How long a client's host may be silent.
    pub client_tcp_user_timeout: Duration,
    /// The budget in bytes for what the kernel queues for slow clients. Zero: as the system has it.
    pub socket_buffers: usize,
    /// This host's addresses to dial leaders from; empty: the system chooses.
    pub sources: Vec<IpAddr>,
    /// How long sessions may finish at shutdown.
    pub drain: Duration,
    /// How long accepting goes on at shutdown, before the drain.
    pub lame_duck: Duration,
    /// The cap on open sessions; at least 1.
    pub max_sessions: usize,
    /// Threads that serve sessions, at least 1; `None`: one a core.
    pub workers: Option<usize>,
}

/// The settings of the publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where probes, metrics and the status are served.
    pub admin: SocketAddr,
    /// Public names by which the admin port is reached.
    pub admin_hosts: Vec<String>,
    /// How the leader is found.
    pub finding: Finding,
    /// The namespace of the Service; `None`: the pod's own, or the kubeconfig's.
    pub namespace: Option<String>,
    /// The Service that shall lead to the primary.
    pub service: String,
    /// Whether its Endpoints are kept too.
    pub endpoints: bool,
    /// The Lease that its one writer holds; `None`: everyone writes.
    pub lease: Option<String>,
}

/// The settings of the look at a running pgnorth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its admin port, as its own setting says: an unspecified address means this host.
    pub admin: SocketAddr,
    /// Go on until interrupted.
    pub watch: bool,
    /// How it is written.
    pub format: Format,
}

/// The settings of `pgnorth hold`, `release` and `cut`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendCommand {
    /// Its admin port, as its own setting says: an unspecified address means this host.
    pub admin: SocketAddr,
    /// The file of the token that it wants.
    pub token_file: PathBuf,
    /// The command.
    pub command: OperatorCommand,
}

/// The settings of the doctor: those of the proxy, or of the publisher, that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// As the proxy would be started. The publisher's are among them.
    pub proxy: Proxy,
    /// The Service that a publisher is to keep, if one is.
    pub service: Option<String>,
    /// Whether it is to keep its Endpoints, too.
    pub endpoints: bool,
    /// The Lease that it is to hold.
    pub lease: Option<String>,
    /// How the report is written.
    pub format: Format,
}

/// How the leader is found: at least one of `kubernetes` and `patroni` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The scope that answers must tell, to count; `None`: that of the first verified leader.
    pub scope: Option<String>,
    /// The cluster's objects in Kubernetes, if it is to be asked.
    pub kubernetes: Option<Kubernetes>,
    /// Base URLs of members' REST API: http or https, with a host, without user, password, path, query or fragment, each once.
    pub patroni: Vec<Url>,
    /// How to speak https with members.
    pub patroni_tls: PatroniTls,
}

/// Where Patroni keeps its objects in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Patroni's scope: the cluster's name, and the stem of its objects' names.
    pub scope: String,
    /// The group of a Citus cluster, which has objects of its own.
    pub citus_group: Option<u32>,
    /// `None`: the pod's own, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Label selector of the members' pods.
    pub selector: String,
    /// pgnorth's own pod, if it is one that Events are to be about.
    pub pod: Option<Pod>,
}

impl Kubernetes {
    /// The stem of the objects' names: the scope, with the group of a Citus cluster (Patroni, kubernetes.py, `_cluster_from_nodes`).
    pub fn objects(&self) -> String {
        match self.citus_group {
            Some(group) => format!("{}-{group}", self.scope),
            None => self.scope.clone(),
        }
    }

    /// The scope that members tell. Whoever follows a Citus group by the name of its objects, `<scope>-<group>`, cannot know it: `None`.
    fn told_scope(&self) -> Option<String> {
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

/// Files in PEM, read when a connection needs them. Nobody has looked yet whether they exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatroniTls {
    /// Certificates that members' certificates are checked against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What pgnorth shows to members that ask for a client certificate.
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

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum Refused {
    /// clap's answer: help, version, an unknown flag, a flag without its value. It knows its stream and its exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Every value that can't be used.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Settings {
    /// Reads the arguments (the program's name first), and for what they do not set `env`, which is asked by the variable's name. A flag wins over its
    /// variable, a variable over the default; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`Refused::Usage`] when there is something for clap to say, else all mistakes at once.
    pub fn read<A, E>(arguments: A, env: E) -> Result<Self, Refused>
    where
        A: IntoIterator<Item = OsString>,
        E: Fn(&str) -> Option<OsString>,
    {
        let matches = commands::command().try_get_matches_from(arguments)?;
        let (row, flags) = commands::chosen(&matches);
        let mut reader = Reader::new(flags, &env);
        let settings = Self {
            job: match row.name {
                Some("publish") => Job::Publish(publish(&mut reader)),
                Some("status") => Job::Status(status(&mut reader)),
                Some("hold") => {
                    let longest = parse::duration(Duration::from_secs(1), HOUR);
                    let length = reader.value(&table::FOR, longest);
                    Job::SendCommand(send_command(&mut reader, OperatorCommand::Hold(length)))
                }
                Some("release") => Job::SendCommand(send_command(&mut reader, OperatorCommand::Release)),
                Some("cut") => {
                    let member = reader.option(&table::MEMBER, parse::member);
                    Job::SendCommand(send_command(&mut reader, OperatorCommand::Cut(member)))
                }
                Some("doctor") => Job::Doctor(doctor(&mut reader)),
                _ => Job::Proxy(proxy(&mut reader)),
            },
            log: reader.value(&table::LOG, LogFilter::parse),
            log_format: reader.value(&table::LOG_FORMAT, parse::format),
        };
        reader.finish(&row.typed())?;
        Ok(settings)
    }
}

fn proxy(reader: &mut Reader<'_>) -> Proxy {
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    let proxy = Proxy {
        listen: reader.value(&table::LISTEN, parse::listener),
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        admin_token_file: reader.option(&table::ADMIN_TOKEN_FILE, parse::file),
        finding: finding(reader, namespace, &[&table::NAMESPACE, &table::SELECTOR]),
        hold: reader.value(&table::HOLD, parse::duration(Duration::ZERO, HOUR)),
        switchover_hold: reader.value(&table::SWITCHOVER_HOLD, parse::duration(Duration::ZERO, HOUR)),
        failover_drain: reader.value(&table::FAILOVER_DRAIN, parse::duration(Duration::ZERO, HOUR)),
        connect_timeout: reader.value(
            &table::CONNECT_TIMEOUT,
            parse::duration(Duration::from_millis(10), Duration::from_secs(60)),
        ),
        tcp_user_timeout: reader.value(
            &table::TCP_USER_TIMEOUT,
            parse::duration(Duration::from_millis(100), HOUR),
        ),
        refusal: identity(reader, &table::REFUSAL_CERT, &table::REFUSAL_KEY),
        client_tcp_user_timeout: reader.value(
            &table::CLIENT_TCP_USER_TIMEOUT,
            parse::duration(Duration::from_millis(100), HOUR),
        ),
        socket_buffers: reader.value(&table::SOCKET_BUFFERS, parse::size),
        sources: reader.option(&table::SOURCE, parse::addresses).unwrap_or_default(),
        drain: reader.value(&table::DRAIN, parse::duration(Duration::ZERO, 24 * HOUR)),
        lame_duck: reader.value(&table::LAME_DUCK, parse::duration(Duration::ZERO, HOUR)),
        max_sessions: reader.value(&table::MAX_SESSIONS, parse::count(SESSIONS)),
        workers: reader.option(&table::WORKERS, parse::count(WORKERS)),
    };
    let both_read = !reader.has_refused(&table::LISTEN) && !reader.has_refused(&table::ADMIN);
    if both_read && parse::collide(proxy.listen, proxy.admin) {
        let problem = format!("--listen ({}) takes the same port", table::LISTEN.env());
        reader.refuse(Mistake::of(
            &table::ADMIN,
            reader.given(&table::ADMIN).as_ref(),
            problem,
        ));
    }
    proxy
}

fn publish(reader: &mut Reader<'_>) -> Publish {
    let why = "name the Service that clients connect to; it must have no selector";
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    Publish {
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        // The Service has a namespace, whoever tells who leads.
        finding: finding(reader, namespace.clone(), &[&table::SELECTOR]),
        namespace,
        service: reader.needed(&table::SERVICE, why, parse::service),
        endpoints: reader.value(&table::ENDPOINTS, parse::switch),
        lease: reader.option(&table::LEASE, parse::scope),
    }
}

fn status(reader: &mut Reader<'_>) -> Status {
    Status {
        admin: reader.value(&table::ADMIN, parse::listener),
        watch: reader.value(&table::WATCH, parse::switch),
        format: reader.value(&table::FORMAT, parse::format),
    }
}

fn send_command(reader: &mut Reader<'_>, command: OperatorCommand) -> SendCommand {
    let why = "name the file with the token that the running pgnorth was given";
    SendCommand {
        admin: reader.value(&table::ADMIN, parse::listener),
        token_file: reader.needed(&table::ADMIN_TOKEN_FILE, why, parse::file),
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

/// `only_with_scope` are settings that mean nothing without it.
fn finding(reader: &mut Reader<'_>, namespace: Option<String>, only_with_scope: &[&'static table::Setting]) -> Finding {
    let wanted = reader.option(&table::KUBERNETES, parse::switch);
    let (scope, kubernetes) = match wanted {
        Some(false) => (without_kubernetes(reader, only_with_scope), None),
        _ => {
            let kubernetes = kubernetes(reader, namespace, only_with_scope);
            (kubernetes.as_ref().and_then(Kubernetes::told_scope), kubernetes)
        }
    };
    if wanted == Some(true) && !reader.is_set(&table::SCOPE) {
        let problem = format!("needs --scope ({}): the cluster to follow there", table::SCOPE.env());
        reader.refuse_if_set(&table::KUBERNETES, problem);
    }
    let finding = Finding {
        scope,
        kubernetes,
        patroni: reader.option(&table::PATRONI, parse::urls).unwrap_or_default(),
        patroni_tls: patroni_tls(reader),
    };
    if !reader.is_set(&table::SCOPE) && !reader.is_set(&table::PATRONI) {
        reader.refuse(Mistake::nowhere_to_ask());
    }
    finding
}

/// The scope alone, which tells whose answers count.
fn without_kubernetes(reader: &mut Reader<'_>, only_with_scope: &[&'static table::Setting]) -> Option<String> {
    if !reader.is_set(&table::PATRONI) && reader.is_set(&table::SCOPE) {
        let problem = format!("leaves nobody to ask: set --patroni ({}) too", table::PATRONI.env());
        reader.refuse_if_set(&table::KUBERNETES, problem);
    }
    for setting in only_with_scope.iter().chain([&&table::CITUS_GROUP]) {
        reader.refuse_if_set(setting, "means nothing with --kubernetes=false".to_owned());
    }
    reader.option(&table::SCOPE, parse::any_scope)
}

fn kubernetes(
    reader: &mut Reader<'_>,
    namespace: Option<String>,
    only_with_scope: &[&'static table::Setting],
) -> Option<Kubernetes> {
    let scope = reader.option(&table::SCOPE, parse::scope);
    let selector = reader.option(&table::SELECTOR, parse::selector);
    if !reader.is_set(&table::SCOPE) && reader.is_set(&table::PATRONI) {
        for setting in only_with_scope.iter().chain([&&table::CITUS_GROUP]) {
            let problem = format!(
                "means nothing without --scope ({}), which makes pgnorth ask Kubernetes",
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
    scope.map(|scope| Kubernetes {
        pod,
        selector: selector.unwrap_or_else(|| labels(&scope)),
        citus_group,
        namespace,
        scope,
    })
}

fn patroni_tls(reader: &mut Reader<'_>) -> PatroniTls {
    PatroniTls {
        ca: reader.option(&table::PATRONI_CA, parse::file),
        identity: identity(reader, &table::PATRONI_CERT, &table::PATRONI_KEY),
    }
}

fn identity(reader: &mut Reader<'_>, cert: &'static table::Setting, key: &'static table::Setting) -> Option<Identity> {
    for (one, other) in [(cert, key), (key, cert)] {
        if !reader.is_set(other) {
            let problem = format!("set --{} ({}) too: the two go together", other.flag, other.env());
            reader.refuse_if_set(one, problem);
        }
    }
    let (cert, key) = (reader.option(cert, parse::file), reader.option(key, parse::file));
    cert.zip(key).map(|(cert, key)| Identity { cert, key })
}

#[cfg(test)]
mod tests;
