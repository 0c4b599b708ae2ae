//! Reads the settings of all commands except the proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::proxy::{Proxy, proxy_in, upstream};
use super::reader::Reader;
use super::sources::{DiscoverySettings, discovery};
use super::{Format, OperatorCommand, parse, table};

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
    /// Service that pgnorth points at the primary.
    pub service: String,
    /// True if the Service's Endpoints are written too.
    pub endpoints: bool,
    /// Lease that elects the writer; without one, every publisher writes.
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
    /// HAProxy to compare with, if there is one.
    pub haproxy: Option<Haproxy>,
}

/// A HAProxy to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// Its statistics.
    pub statistics: HaproxyStatistics,
    /// The backend of the primary; by default, the only one with members as servers.
    pub backend: Option<String>,
}

/// The location of HAProxy's statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaproxyStatistics {
    /// http or https, with a host, without user, password and fragment; its path or query ends in `;csv`.
    Http(Box<Url>),
    /// A Unix socket that understands `show stat`.
    Socket(PathBuf),
    /// A file that is rewritten every second.
    File(PathBuf),
}

/// The settings of `pgnorth status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Admin port of the running pgnorth; an unspecified address means this host.
    pub admin: SocketAddr,
    /// True if the report is refreshed until it is interrupted.
    pub watch: bool,
    /// Format of the report.
    pub format: Format,
}

/// The settings of `pgnorth hold`, `release` and `cut`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendCommand {
    /// Admin port of the running pgnorth; an unspecified address means this host.
    pub admin: SocketAddr,
    /// File with the token of that pgnorth.
    pub token_file: PathBuf,
    /// The command.
    pub command: OperatorCommand,
}

/// The settings of `pgnorth reload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The process to replace; by default, systemd's MAINPID, or else the only pgnorth on this host.
    pub pid: Option<u32>,
    /// Flags and values for the new process, which checks them itself.
    pub flags: Vec<(String, String)>,
}

/// The settings of `pgnorth doctor`: those of the proxy or publisher that it checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// Settings of the proxy. The publisher has the same sources of discovery and the same target.
    pub proxy: Proxy,
    /// Namespace of the Service; none means the pod's own, or the kubeconfig's.
    pub namespace: Option<String>,
    /// Service of the publisher to check, if there is one.
    pub service: Option<String>,
    /// True if the publisher writes Endpoints too.
    pub endpoints: bool,
    /// Lease of the publisher.
    pub lease: Option<String>,
    /// Format of the report.
    pub format: Format,
}

pub(super) fn publish(reader: &mut Reader<'_>) -> Publish {
    let why = "name the Service that clients connect to; it must not have a selector";
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    // The Service has a namespace even if Kubernetes is not a source of discovery.
    let mut discovery = discovery(reader, namespace.clone(), &[&table::SELECTOR]);
    discovery.upstream = upstream(reader, &discovery);
    Publish {
        admin: reader.value(&table::ADMIN, parse::listener),
        admin_hosts: reader.option(&table::ADMIN_HOST, parse::hosts).unwrap_or_default(),
        discovery,
        namespace,
        service: reader.required(&table::SERVICE, why, parse::service),
        endpoints: reader.value(&table::ENDPOINTS, parse::switch),
        lease: reader.option(&table::LEASE, parse::scope),
    }
}

pub(super) fn watch(reader: &mut Reader<'_>) -> Watch {
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
    let backend = reader.option(&table::HAPROXY_BACKEND, parse::not_empty);
    Some(Haproxy {
        statistics: statistics?,
        backend,
    })
}

pub(super) fn status(reader: &mut Reader<'_>) -> Status {
    Status {
        admin: reader.value(&table::ADMIN, parse::listener),
        watch: reader.value(&table::WATCH, parse::switch),
        format: reader.value(&table::FORMAT, parse::format),
    }
}

pub(super) fn send_command(reader: &mut Reader<'_>, command: OperatorCommand) -> SendCommand {
    let why = "name the token file of the running pgnorth";
    SendCommand {
        admin: reader.value(&table::ADMIN, parse::listener),
        token_file: reader.required(&table::ADMIN_TOKEN_FILE, why, parse::file),
        command,
    }
}

pub(super) fn doctor(reader: &mut Reader<'_>) -> Doctor {
    let namespace = reader.option(&table::NAMESPACE, parse::namespace);
    // The Service has a namespace even if Kubernetes is not a source of discovery.
    let only_with_scope: &[_] = match reader.is_set(&table::SERVICE) {
        true => &[&table::SELECTOR],
        false => &[&table::NAMESPACE, &table::SELECTOR],
    };
    Doctor {
        proxy: proxy_in(reader, namespace.clone(), only_with_scope),
        namespace,
        service: reader.option(&table::SERVICE, parse::service),
        endpoints: reader.value(&table::ENDPOINTS, parse::switch),
        lease: reader.option(&table::LEASE, parse::scope),
        format: reader.value(&table::FORMAT, parse::format),
    }
}
