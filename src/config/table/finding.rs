//! The rows of the sources of discovery.

use super::{FILE, FINDING, NAME, ROW, Setting, Unset, Values};

pub(in crate::config) const SCOPE: Setting = Setting {
    flag: "scope",
    group: FINDING,
    values: NAME,
    help: "Patroni's scope: the cluster to follow, through etcd with --etcd, else through the Kubernetes API",
    example: "demo",
    ..ROW
};

pub(in crate::config) const KUBERNETES: Setting = Setting {
    flag: "kubernetes",
    group: FINDING,
    values: Values::Switch,
    help: "Follow the scope's objects in the Kubernetes API",
    more: "With false, --scope only says which cluster's answers to --patroni count.",
    see: "concepts/deciding.md#which-cluster-is-followed",
    unset: Unset::Found("true with --scope, false with --etcd"),
    example: "false",
    ..ROW
};

pub(in crate::config) const CITUS_GROUP: Setting = Setting {
    flag: "citus-group",
    group: FINDING,
    values: Values::Text("NUMBER", "group number"),
    help: "Group to follow if the scope is a Citus cluster; 0 is the coordinator",
    more: "Only with --scope, in Kubernetes or with --etcd.",
    example: "0",
    ..ROW
};

pub(in crate::config) const NAMESPACE: Setting = Setting {
    flag: "namespace",
    group: FINDING,
    values: NAME,
    help: "Namespace of the cluster",
    more: "Only with --scope.",
    unset: Unset::Found("the pod's or kubeconfig's own"),
    example: "databases",
    ..ROW
};

pub(in crate::config) const SELECTOR: Setting = Setting {
    flag: "selector",
    group: FINDING,
    values: Values::Text("LABELS", "label selector"),
    help: "Label selector of the members' pods",
    more: "Only with --scope.",
    unset: Unset::Found("cluster-name=<scope>[,citus-group=<group>]"),
    example: "application=patroni,cluster-name=demo",
    ..ROW
};

pub(in crate::config) const PATRONI: Setting = Setting {
    flag: "patroni",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Base URLs of members' REST API, comma-separated; needs no Kubernetes",
    more: "Scheme, host and port. One member that answers is enough: it names the others.",
    example: "http://10.0.0.1:8008,http://10.0.0.2:8008",
    ..ROW
};

pub(in crate::config) const PATRONI_CA: Setting = Setting {
    flag: "patroni-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) that members' https certificates are checked against",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/ca.crt",
    ..ROW
};

pub(in crate::config) const PATRONI_CERT: Setting = Setting {
    flag: "patroni-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to show to members; needs --patroni-key",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.crt",
    ..ROW
};

pub(in crate::config) const PATRONI_KEY: Setting = Setting {
    flag: "patroni-key",
    group: FINDING,
    values: FILE,
    help: "Private key (PEM) of the client certificate",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.key",
    ..ROW
};

pub(in crate::config) const ETCD: Setting = Setting {
    flag: "etcd",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Client URLs of the etcd that Patroni uses, comma-separated: follow the scope's keys there",
    more: "Scheme, host and port, as in Patroni's `etcd3.hosts`; all of them, so that one may fail. Needs --scope.",
    see: "start/hosts.md#etcd",
    example: "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379",
    ..ROW
};

pub(in crate::config) const ETCD_NAMESPACE: Setting = Setting {
    flag: "etcd-namespace",
    group: FINDING,
    values: Values::Text("PATH", "first part of the keys"),
    help: "Patroni's `namespace`: the keys begin with it, then the scope",
    unset: Unset::Value("/service"),
    example: "/service",
    ..ROW
};

pub(in crate::config) const ETCD_USER: Setting = Setting {
    flag: "etcd-user",
    group: FINDING,
    values: NAME,
    help: "User of etcd, if it requires one; needs --etcd-password-file",
    more: "The user needs to read the scope's keys, and nothing else.",
    see: "operating/hosts.md#a-user-of-etcd-for-pgnorth",
    example: "pgnorth",
    ..ROW
};

pub(in crate::config) const ETCD_PASSWORD_FILE: Setting = Setting {
    flag: "etcd-password-file",
    group: FINDING,
    values: FILE,
    help: "File of the user's password for etcd",
    more: "The file is read at each authentication.",
    example: "/etc/pgnorth/etcd-password",
    ..ROW
};

pub(in crate::config) const ETCD_CA: Setting = Setting {
    flag: "etcd-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) that etcd's https certificates are checked against",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/etcd-ca.crt",
    ..ROW
};

pub(in crate::config) const ETCD_CERT: Setting = Setting {
    flag: "etcd-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to show to etcd; needs --etcd-key",
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
