//! The rows of the sources of discovery.

use super::{FILE, FINDING, NAME, ROW, Setting, Unset, Values};

pub(in crate::config) const SCOPE: Setting = Setting {
    flag: "scope",
    group: FINDING,
    values: NAME,
    help: "Patroni's scope: the cluster to follow, through etcd with --etcd, else through the Kubernetes API",
    more: "With --kubernetes=false and without --etcd, it only filters the answers to --patroni.",
    example: "demo",
    ..ROW
};

pub(in crate::config) const KUBERNETES: Setting = Setting {
    flag: "kubernetes",
    group: FINDING,
    values: Values::Switch,
    help: "Follow the scope's objects in the Kubernetes API",
    more: "If false and without --etcd, --scope only filters the answers to --patroni: those of other clusters are \
           ignored.",
    see: "concepts/deciding.md#which-cluster-is-followed",
    unset: Unset::Found("true with --scope, unless --etcd is set"),
    example: "false",
    ..ROW
};

pub(in crate::config) const CITUS_GROUP: Setting = Setting {
    flag: "citus-group",
    group: FINDING,
    values: Values::Text("NUMBER", "group number"),
    help: "Group to follow if the scope is a Citus cluster; 0 is the coordinator",
    more: "Only with --scope, and with Kubernetes or --etcd as a source.",
    example: "0",
    ..ROW
};

pub(in crate::config) const NAMESPACE: Setting = Setting {
    flag: "namespace",
    group: FINDING,
    values: NAME,
    help: "Kubernetes namespace of the cluster, and of the Service of pgnorth publish",
    more: "Except for pgnorth publish and pgnorth doctor --service, only with Kubernetes as a source.",
    unset: Unset::Found("the pod's, or the kubeconfig's"),
    example: "databases",
    ..ROW
};

pub(in crate::config) const SELECTOR: Setting = Setting {
    flag: "selector",
    group: FINDING,
    values: Values::Text("LABELS", "label selector"),
    help: "Label selector of the members' pods",
    more: "Only with Kubernetes as a source.",
    unset: Unset::Found("cluster-name=<scope>[,citus-group=<group>]"),
    example: "application=patroni,cluster-name=demo",
    ..ROW
};

pub(in crate::config) const PATRONI: Setting = Setting {
    flag: "patroni",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Base URLs of members' REST API, comma-separated; needs no Kubernetes",
    more: "Each URL has a scheme, a host and a port. One reachable member is enough: it names the others.",
    example: "http://10.0.0.1:8008,http://10.0.0.2:8008",
    ..ROW
};

pub(in crate::config) const PATRONI_CA: Setting = Setting {
    flag: "patroni-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) to verify members' https certificates",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/ca.crt",
    ..ROW
};

pub(in crate::config) const PATRONI_CERT: Setting = Setting {
    flag: "patroni-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to present to members; needs --patroni-key",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.crt",
    ..ROW
};

pub(in crate::config) const PATRONI_KEY: Setting = Setting {
    flag: "patroni-key",
    group: FINDING,
    values: FILE,
    help: "Private key (PEM) of the client certificate for members",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.key",
    ..ROW
};

pub(in crate::config) const ETCD: Setting = Setting {
    flag: "etcd",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Client URLs of Patroni's etcd, comma-separated; pgnorth follows the scope's keys there",
    more: "Each URL has a scheme, a host and a port. List all etcd members, as in Patroni's `etcd3.hosts`, so that one \
           may fail. Needs --scope.",
    see: "start/hosts.md#etcd",
    example: "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379",
    ..ROW
};

pub(in crate::config) const ETCD_NAMESPACE: Setting = Setting {
    flag: "etcd-namespace",
    group: FINDING,
    values: Values::Text("PATH", "first part of the keys"),
    help: "Patroni's `namespace`: the first part of every key, before the scope",
    unset: Unset::Value("/service"),
    example: "/service",
    ..ROW
};

pub(in crate::config) const ETCD_USER: Setting = Setting {
    flag: "etcd-user",
    group: FINDING,
    values: NAME,
    help: "etcd user, if etcd requires authentication; needs --etcd-password-file",
    more: "The user needs only read access to the scope's keys.",
    see: "operating/hosts.md#a-user-of-etcd-for-pgnorth",
    example: "pgnorth",
    ..ROW
};

pub(in crate::config) const ETCD_PASSWORD_FILE: Setting = Setting {
    flag: "etcd-password-file",
    group: FINDING,
    values: FILE,
    help: "File with the password of the etcd user",
    more: "The file is read at each authentication.",
    example: "/etc/pgnorth/etcd-password",
    ..ROW
};

pub(in crate::config) const ETCD_CA: Setting = Setting {
    flag: "etcd-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) to verify etcd's https certificates",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/etcd-ca.crt",
    ..ROW
};

pub(in crate::config) const ETCD_CERT: Setting = Setting {
    flag: "etcd-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to present to etcd; needs --etcd-key",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/etcd.crt",
    ..ROW
};

pub(in crate::config) const ETCD_KEY: Setting = Setting {
    flag: "etcd-key",
    group: FINDING,
    values: FILE,
    help: "Private key (PEM) of the client certificate for etcd",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/etcd.key",
    ..ROW
};
