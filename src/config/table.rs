//! One row a setting: its flag, default, help and an example. The environment variable follows from the flag. Which command has which settings stands in
//! `commands.rs`.

use clap::{Arg, ArgAction};

/// One setting as people see it.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag without its hyphens.
    pub(super) flag: &'static str,
    group: &'static str,
    /// What stands for the value in the help.
    value: &'static str,
    help: &'static str,
    unset: Unset,
    /// A value to copy from an error message.
    pub(super) good: &'static str,
}

/// What holds when nothing is given.
#[derive(Debug)]
enum Unset {
    /// This value, read like a given one. It is valid: a test reads them all.
    Value(&'static str),
    /// Something found out later, told in words.
    Found(&'static str),
    Nothing,
}

/// The value of a setting that is on or off; its flag alone turns it on.
const SWITCH: &str = "true|false";

const LISTENING: &str = "Listening";
const PUBLISHING: &str = "Publishing";
const ORDER: &str = "The order";
const REPORT: &str = "Report";
const FINDING: &str = "Finding the leader";
const SESSIONS: &str = "Sessions";
const SHUTDOWN: &str = "Shutdown";
const LOGS: &str = "Logs";

pub(super) const LISTEN: Setting = Setting {
    flag: "listen",
    group: LISTENING,
    value: "ADDRESS",
    help: "IP address and port for PostgreSQL clients; [::] takes IPv4 too",
    unset: Unset::Value("[::]:5432"),
    good: "[::]:5432",
};

pub(super) const ADMIN: Setting = Setting {
    flag: "admin",
    group: LISTENING,
    value: "ADDRESS",
    help: "IP address and port for probes, metrics and status over HTTP",
    unset: Unset::Value("[::]:8080"),
    good: "[::]:8080",
};

pub(super) const ADMIN_TOKEN_FILE: Setting = Setting {
    flag: "admin-token-file",
    group: LISTENING,
    value: "FILE",
    help: "Holds the token that operators' orders need: hold, release, cut. Without it nobody can give any",
    unset: Unset::Nothing,
    good: "/etc/pgnorth/admin/token",
};

pub(super) const ADMIN_HOST: Setting = Setting {
    flag: "admin-host",
    group: LISTENING,
    value: "NAMES",
    help: "Public host names, comma-separated, by which the admin port is reached; others are refused. IP addresses and private names always work",
    unset: Unset::Nothing,
    good: "pgnorth.example.com",
};

pub(super) const SCOPE: Setting = Setting {
    flag: "scope",
    group: FINDING,
    value: "NAME",
    help: "Patroni's scope: the cluster to follow, through the Kubernetes API unless --kubernetes=false",
    unset: Unset::Nothing,
    good: "demo",
};

pub(super) const KUBERNETES: Setting = Setting {
    flag: "kubernetes",
    group: FINDING,
    value: SWITCH,
    help: "Follow the scope's objects in the Kubernetes API; false: --scope only tells which cluster's answers to --patroni count",
    unset: Unset::Found("true with --scope"),
    good: "false",
};

pub(super) const CITUS_GROUP: Setting = Setting {
    flag: "citus-group",
    group: FINDING,
    value: "NUMBER",
    help: "The group to follow, where the scope is a Citus cluster's; 0 is the coordinator",
    unset: Unset::Nothing,
    good: "0",
};

pub(super) const NAMESPACE: Setting = Setting {
    flag: "namespace",
    group: FINDING,
    value: "NAME",
    help: "The cluster's namespace",
    unset: Unset::Found("the pod's or kubeconfig's own"),
    good: "databases",
};

pub(super) const SELECTOR: Setting = Setting {
    flag: "selector",
    group: FINDING,
    value: "LABELS",
    help: "Label selector of the members' pods",
    unset: Unset::Found("cluster-name=<scope>[,citus-group=<group>]"),
    good: "application=patroni,cluster-name=demo",
};

pub(super) const PATRONI: Setting = Setting {
    flag: "patroni",
    group: FINDING,
    value: "URLS",
    help: "Base URLs of members' REST API, comma-separated; needs no Kubernetes",
    unset: Unset::Nothing,
    good: "http://10.0.0.1:8008,http://10.0.0.2:8008",
};

pub(super) const PATRONI_CA: Setting = Setting {
    flag: "patroni-ca",
    group: FINDING,
    value: "FILE",
    help: "CA certificates (PEM) to check members' https certificates against",
    unset: Unset::Found("the system's"),
    good: "/etc/pgnorth/ca.crt",
};

pub(super) const PATRONI_CERT: Setting = Setting {
    flag: "patroni-cert",
    group: FINDING,
    value: "FILE",
    help: "Client certificate (PEM) to show to members; needs --patroni-key",
    unset: Unset::Nothing,
    good: "/etc/pgnorth/tls.crt",
};

pub(super) const PATRONI_KEY: Setting = Setting {
    flag: "patroni-key",
    group: FINDING,
    value: "FILE",
    help: "Private key (PEM) of the client certificate",
    unset: Unset::Nothing,
    good: "/etc/pgnorth/tls.key",
};

pub(super) const SERVICE: Setting = Setting {
    flag: "service",
    group: PUBLISHING,
    value: "NAME",
    help: "The Service without a selector that shall lead to the primary",
    unset: Unset::Nothing,
    good: "postgres-primary",
};

pub(super) const ENDPOINTS: Setting = Setting {
    flag: "endpoints",
    group: PUBLISHING,
    value: SWITCH,
    help: "Keep the Service's Endpoints too, for clusters whose kube-proxy reads no EndpointSlices",
    unset: Unset::Value("false"),
    good: "true",
};

pub(super) const LEASE: Setting = Setting {
    flag: "lease",
    group: PUBLISHING,
    value: "NAME",
    help: "Of several publishers, let only the one write that holds this Lease",
    unset: Unset::Nothing,
    good: "pgnorth-publish",
};

pub(super) const WATCH: Setting = Setting {
    flag: "watch",
    group: REPORT,
    value: SWITCH,
    help: "Go on showing it, at each change and each second, until interrupted",
    unset: Unset::Value("false"),
    good: "true",
};

pub(super) const FORMAT: Setting = Setting {
    flag: "format",
    group: REPORT,
    value: "FORMAT",
    help: "text (for people) or json (an object); always to stdout",
    unset: Unset::Value("text"),
    good: "json",
};

pub(super) const FOR: Setting = Setting {
    flag: "for",
    group: ORDER,
    value: "DURATION",
    help: "How long new clients wait, unless they are released before: 1s to 1h",
    unset: Unset::Value("60s"),
    good: "5m",
};

pub(super) const MEMBER: Setting = Setting {
    flag: "member",
    group: ORDER,
    value: "NAME",
    help: "Whose sessions end; by default every member's",
    unset: Unset::Nothing,
    good: "demo-0",
};

pub(super) const HOLD: Setting = Setting {
    flag: "hold",
    group: SESSIONS,
    value: "DURATION",
    help: "How long a new client waits for a leader before it is refused",
    unset: Unset::Value("60s"),
    good: "60s",
};

pub(super) const FAILOVER_DRAIN: Setting = Setting {
    flag: "failover-drain",
    group: SESSIONS,
    value: "DURATION",
    help: "How long sessions may go on to a leader that gave the lock up cleanly; a fence never waits",
    unset: Unset::Value("0s"),
    good: "5s",
};

pub(super) const SWITCHOVER_HOLD: Setting = Setting {
    flag: "switchover-hold",
    group: SESSIONS,
    value: "DURATION",
    help: "How long an announced switchover may hold new clients before the old leader is used again",
    unset: Unset::Value("10s"),
    good: "10s",
};

pub(super) const CONNECT_TIMEOUT: Setting = Setting {
    flag: "connect-timeout",
    group: SESSIONS,
    value: "DURATION",
    help: "Deadline of one attempt to connect to the leader",
    unset: Unset::Value("1s"),
    good: "1s",
};

pub(super) const TCP_USER_TIMEOUT: Setting = Setting {
    flag: "tcp-user-timeout",
    group: SESSIONS,
    value: "DURATION",
    help: "How long the leader's host may be silent before a session to it ends",
    unset: Unset::Value("30s"),
    good: "30s",
};

pub(super) const CLIENT_TCP_USER_TIMEOUT: Setting = Setting {
    flag: "client-tcp-user-timeout",
    group: SESSIONS,
    value: "DURATION",
    help: "How long a client's host may be silent before its session ends",
    unset: Unset::Value("1m"),
    good: "1m",
};

pub(super) const SOCKET_BUFFERS: Setting = Setting {
    flag: "socket-buffers",
    group: SESSIONS,
    value: "SIZE",
    help: "Memory for the kernel's socket buffers of slow clients: of N sessions, the last gets an N-th of it; 0 leaves them to Linux",
    unset: Unset::Value("40MiB"),
    good: "40MiB",
};

pub(super) const SOURCE: Setting = Setting {
    flag: "source",
    group: SESSIONS,
    value: "ADDRESSES",
    help: "This host's IP addresses to reach leaders from, comma-separated; each has local ports of its own",
    unset: Unset::Found("the system's choice"),
    good: "10.0.0.5,10.0.0.6",
};

pub(super) const MAX_SESSIONS: Setting = Setting {
    flag: "max-sessions",
    group: SESSIONS,
    value: "COUNT",
    help: "Sessions open at once; further clients are refused",
    unset: Unset::Value("10000"),
    good: "10000",
};

pub(super) const WORKERS: Setting = Setting {
    flag: "workers",
    group: SESSIONS,
    value: "COUNT",
    help: "Threads that serve sessions; a session stays on one",
    unset: Unset::Found("one a core"),
    good: "2",
};

pub(super) const REFUSAL_CERT: Setting = Setting {
    flag: "refusal-cert",
    group: SESSIONS,
    value: "FILE",
    help: "Certificate chain (PEM) that TLS clients see when they are refused",
    unset: Unset::Found("self-signed, made at start"),
    good: "/etc/pgnorth/refusals/tls.crt",
};

pub(super) const REFUSAL_KEY: Setting = Setting {
    flag: "refusal-key",
    group: SESSIONS,
    value: "FILE",
    help: "Private key (PEM) of that certificate",
    unset: Unset::Nothing,
    good: "/etc/pgnorth/refusals/tls.key",
};

pub(super) const LAME_DUCK: Setting = Setting {
    flag: "lame-duck",
    group: SHUTDOWN,
    value: "DURATION",
    help: "How long clients are accepted after SIGTERM, until load balancers know",
    unset: Unset::Value("5s"),
    good: "5s",
};

pub(super) const DRAIN: Setting = Setting {
    flag: "drain",
    group: SHUTDOWN,
    value: "DURATION",
    help: "How long sessions may then finish before they are closed",
    unset: Unset::Value("30s"),
    good: "30s",
};

pub(super) const POD_NAME: Setting = Setting {
    flag: "pod-name",
    group: LOGS,
    value: "NAME",
    help: "This pod: changes of leader and fences become Kubernetes Events about it",
    unset: Unset::Nothing,
    good: "pgnorth-6c9f7d-x2v4q",
};

pub(super) const POD_UID: Setting = Setting {
    flag: "pod-uid",
    group: LOGS,
    value: "UID",
    help: "Its uid, by which kubectl describe finds them; only with --pod-name",
    unset: Unset::Nothing,
    good: "0b1c0a4e-6f5b-4b7a-9a55-2f3f6f0c1d7e",
};

pub(super) const LOG: Setting = Setting {
    flag: "log",
    group: LOGS,
    value: "FILTER",
    help: "Level: off, error, warn, info, debug or trace; also of single modules, such as debug,kube=info",
    unset: Unset::Value("info"),
    good: "info,pgnorth::proxy=debug",
};

pub(super) const LOG_FORMAT: Setting = Setting {
    flag: "log-format",
    group: LOGS,
    value: "FORMAT",
    help: "text (for people) or json (an object a line); always to stderr",
    unset: Unset::Value("text"),
    good: "json",
};

impl Setting {
    /// The environment variable: `--max-sessions` is PGNORTH_MAX_SESSIONS.
    pub(super) fn env(&self) -> String {
        format!("PGNORTH_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// The default, for a setting that has a fixed one.
    pub(super) fn default(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Value(value) => Some(value),
            Unset::Found(_) | Unset::Nothing => None,
        }
    }

    /// clap's own `env` and `default_value` are not used: it would read the process's environment by itself, and take an empty variable for a value.
    pub(super) fn argument(&self) -> Arg {
        let default = match self.unset {
            Unset::Value(text) | Unset::Found(text) => format!(" [default: {text}]"),
            Unset::Nothing => String::new(),
        };
        let argument = Arg::new(self.flag)
            .long(self.flag)
            .value_name(self.value)
            .help(format!("{}\n[env: {}]{default}", self.help, self.env()))
            .help_heading(self.group)
            .action(ArgAction::Set);
        match self.value {
            SWITCH => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => argument,
        }
    }
}
