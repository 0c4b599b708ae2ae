//! Reads the settings of the sources of discovery: Kubernetes, etcd, members' REST API.

use std::path::PathBuf;

use url::Url;

use super::reader::Reader;
use super::tls::{ClientTls, both, identity, patroni_tls};
use super::{InvalidSetting, Setting, parse, table};
use crate::route::Upstream;

/// Sources of discovery: `kubernetes` or `etcd`, and `patroni`. At least one is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Scope that members must report for their answers to count. Without it, pgnorth uses the scope of the first
    /// verified leader.
    pub scope: Option<String>,
    /// The cluster's objects in Kubernetes, if its API is a source.
    pub kubernetes: Option<Kubernetes>,
    /// The cluster's keys in etcd, if it is a source.
    pub etcd: Option<Etcd>,
    /// Base URLs of members' REST API: http or https, with a host, without user, password, path, query or fragment,
    /// each once.
    pub patroni: Vec<Url>,
    /// TLS files for members' REST API.
    pub patroni_tls: ClientTls,
    /// The choice of the server on a member that sessions go to: PostgreSQL, or its pooler.
    pub upstream: Upstream,
}

impl DiscoverySettings {
    /// Returns true if a source reads Patroni's DCS, where members publish more about themselves than in `/cluster`.
    pub fn reads_dcs(&self) -> bool {
        self.kubernetes.is_some() || self.etcd.is_some()
    }

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
    /// The beginning of every key: `/<namespace>/<scope>/`, and the group of a Citus cluster.
    pub prefix: String,
    /// Group of a Citus cluster; each group has its own keys.
    pub citus_group: Option<u32>,
    /// The user and the file with its password, if pgnorth authenticates.
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
    /// pgnorth's own pod, to which its Events refer; without one, it writes no Events.
    pub pod: Option<OwnPod>,
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

    /// Returns the scope that members report; none if `scope` may be `<scope>-<group>`, the prefix of a Citus group,
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
pub struct OwnPod {
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: Option<String>,
}

/// Reads the sources. `only_with_scope` are the settings that have no effect unless Kubernetes is a source.
pub(super) fn discovery(
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
            "contradicts --etcd ({}): Patroni keeps its leader lock in only one of the two",
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

/// Reads the scope if Kubernetes is not a source.
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
    // Without Kubernetes and etcd, the scope is only compared with the scope in the members' answers.
    reader.option(&table::SCOPE, parse::not_empty)
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
    let user = reader.option(&table::ETCD_USER, parse::not_empty);
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
        .map(|name| OwnPod { name, uid });
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
