//! One row per setting: flag, group, values, help, default and example. The variable follows from the flag; `--help`,
//! man page, completions, reference and error messages follow from the row. `commands.rs` says which command has which
//! settings.

use std::time::Duration;

use clap::{Arg, ArgAction, ValueHint};

use super::values::Values;

/// One setting as users see it.
#[derive(Debug)]
pub struct Setting {
    /// The flag without its hyphens.
    pub flag: &'static str,
    /// Heading in the help.
    group: &'static str,
    /// The values that it takes.
    pub values: Values,
    /// One phrase, as `-h` prints it.
    pub help: &'static str,
    /// Further sentences for `--help`, the man page and the reference; empty if the phrase says it all.
    pub more: &'static str,
    /// The page of `docs/` that explains it; empty if none does.
    pub see: &'static str,
    unset: Unset,
    /// The flag may be given several times. In the variable, the values are separated by `;`.
    pub repeats: bool,
    /// A valid value, offered in error messages.
    pub example: &'static str,
}

/// The value that applies if none is given.
#[derive(Debug)]
enum Unset {
    /// This value, parsed like a given one. A test parses all of them.
    Value(&'static str),
    /// A value that is known only at run time, described in words.
    Found(&'static str),
    Nothing,
}

/// The optional parts of a row.
const ROW: Setting = Setting {
    flag: "",
    group: "",
    values: NAME,
    help: "",
    more: "",
    see: "",
    unset: Unset::Nothing,
    repeats: false,
    example: "",
};

const LISTENING: &str = "Listening";
const PUBLISHING: &str = "Publishing";
const OPERATORS: &str = "Operator command";
const REPORT: &str = "Report";
const COMPARING: &str = "Comparing";
const FINDING: &str = "Finding the leader";
const SESSIONS: &str = "Sessions";
const SHUTDOWN: &str = "Shutdown";
const LOGS: &str = "Logs";

const NAME: Values = Values::Text("NAME", "name");
const FILE: Values = Values::File;
const ADDRESS: Values = Values::Text("ADDRESS", "IP address and port");
const HOUR: Duration = Duration::from_secs(3600);
const UP_TO_AN_HOUR: Values = Values::Duration(Duration::ZERO, HOUR);
const HOST_TIMEOUT: Values = Values::Duration(Duration::from_millis(100), HOUR);

pub(super) const LISTEN: Setting = Setting {
    flag: "listen",
    group: LISTENING,
    values: ADDRESS,
    help: "IP address and port for PostgreSQL clients; [::] takes IPv4 too",
    more: "Short for --route ADDRESS=primary. The default does not apply if a --route or --ports leads to the primary.",
    unset: Unset::Value("[::]:5432"),
    example: "[::]:5432",
    ..ROW
};

pub(super) const ROUTE: Setting = Setting {
    flag: "route",
    group: LISTENING,
    values: Values::Text("ROUTE", "ADDRESS=ROUTE[,KEY=VALUE]"),
    help: "A further listener and the members that its clients reach, such as replica; repeatable",
    more: "ADDRESS is an IP address and a port. ROUTE is primary, replica, read-only, sync, async, quorum, leader or standby-leader. Keys: max-lag=16MB, lagging=cut, streaming, tag.NAME=VALUE, prefer.NAME=VALUE, fallback=primary, hold=5s. In the variable, routes are separated by semicolons.",
    see: "concepts/routes.md",
    repeats: true,
    example: "[::]:5001=replica",
    ..ROW
};

pub(super) const PORTS_PRESET: Setting = Setting {
    flag: "ports",
    group: LISTENING,
    values: Values::Text("PRESET", "patroni or autobase"),
    help: "The ports and routes of a well-known HAProxy template: patroni or autobase",
    more: "patroni: 5000 primary, 5001 replica. autobase: these, 5002 sync and 5003 async, with max-lag=100MB for 5001 and 5003.",
    see: "concepts/routes.md",
    example: "patroni",
    ..ROW
};

pub(super) const PROXY_PROTOCOL_FROM: Setting = Setting {
    flag: "proxy-protocol-from",
    group: LISTENING,
    values: Values::Text("NETWORKS", "networks or IP addresses, comma-separated"),
    help: "Networks of load balancers that send a PROXY protocol header, comma-separated",
    more: "Versions 1 and 2. The log then has the client's own address. A connection from there without a header is \
           closed; a header from anywhere else is not accepted.",
    see: "operating/several.md#the-clients-own-address",
    unset: Unset::Nothing,
    example: "10.0.0.5,10.0.1.0/24",
    ..ROW
};

pub(super) const ADMIN: Setting = Setting {
    flag: "admin",
    group: LISTENING,
    values: ADDRESS,
    help: "IP address and port for probes, metrics and status over HTTP",
    more: "It has no password except for operator commands: keep it inside your network.",
    see: "reference/admin-port.md",
    unset: Unset::Value("[::]:8080"),
    example: "[::]:8080",
    ..ROW
};

pub(super) const ADMIN_TOKEN_FILE: Setting = Setting {
    flag: "admin-token-file",
    group: LISTENING,
    values: FILE,
    help: "File of the token that the operator commands hold, release and cut require",
    more: "pgnorth reads it at each command. Without it, no operator command is accepted.",
    see: "operating/maintenance.md",
    example: "/etc/pgnorth/admin/token",
    ..ROW
};

pub(super) const ADMIN_HOST: Setting = Setting {
    flag: "admin-host",
    group: LISTENING,
    values: Values::Text("NAMES", "host names, comma-separated"),
    help: "Public host names of the admin port, comma-separated",
    more: "Requests under other public names are refused with 421. IP addresses and private names are always accepted.",
    see: "reference/admin-port.md#host-names",
    example: "pgnorth.example.com",
    ..ROW
};

pub(super) const SCOPE: Setting = Setting {
    flag: "scope",
    group: FINDING,
    values: NAME,
    help: "Patroni's scope: the cluster to follow, through etcd with --etcd, else through the Kubernetes API",
    example: "demo",
    ..ROW
};

pub(super) const KUBERNETES: Setting = Setting {
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

pub(super) const CITUS_GROUP: Setting = Setting {
    flag: "citus-group",
    group: FINDING,
    values: Values::Text("NUMBER", "group number"),
    help: "Group to follow if the scope is a Citus cluster; 0 is the coordinator",
    more: "Only with --scope, in Kubernetes or with --etcd.",
    example: "0",
    ..ROW
};

pub(super) const NAMESPACE: Setting = Setting {
    flag: "namespace",
    group: FINDING,
    values: NAME,
    help: "Namespace of the cluster",
    more: "Only with --scope.",
    unset: Unset::Found("the pod's or kubeconfig's own"),
    example: "databases",
    ..ROW
};

pub(super) const SELECTOR: Setting = Setting {
    flag: "selector",
    group: FINDING,
    values: Values::Text("LABELS", "label selector"),
    help: "Label selector of the members' pods",
    more: "Only with --scope.",
    unset: Unset::Found("cluster-name=<scope>[,citus-group=<group>]"),
    example: "application=patroni,cluster-name=demo",
    ..ROW
};

pub(super) const PATRONI: Setting = Setting {
    flag: "patroni",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Base URLs of members' REST API, comma-separated; needs no Kubernetes",
    more: "Scheme, host and port. One member that answers is enough: it names the others.",
    example: "http://10.0.0.1:8008,http://10.0.0.2:8008",
    ..ROW
};

pub(super) const PATRONI_CA: Setting = Setting {
    flag: "patroni-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) that members' https certificates are checked against",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/ca.crt",
    ..ROW
};

pub(super) const PATRONI_CERT: Setting = Setting {
    flag: "patroni-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to show to members; needs --patroni-key",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.crt",
    ..ROW
};

pub(super) const PATRONI_KEY: Setting = Setting {
    flag: "patroni-key",
    group: FINDING,
    values: FILE,
    help: "Private key (PEM) of the client certificate",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/tls.key",
    ..ROW
};

pub(super) const ETCD: Setting = Setting {
    flag: "etcd",
    group: FINDING,
    values: Values::Text("URLS", "URLs, comma-separated"),
    help: "Client URLs of the etcd that Patroni uses, comma-separated: follow the scope's keys there",
    more: "Scheme, host and port, as in Patroni's `etcd3.hosts`; all of them, so that one may fail. Needs --scope.",
    see: "start/hosts.md#etcd",
    example: "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379",
    ..ROW
};

pub(super) const ETCD_NAMESPACE: Setting = Setting {
    flag: "etcd-namespace",
    group: FINDING,
    values: Values::Text("PATH", "first part of the keys"),
    help: "Patroni's `namespace`: the keys begin with it, then the scope",
    unset: Unset::Value("/service"),
    example: "/service",
    ..ROW
};

pub(super) const ETCD_USER: Setting = Setting {
    flag: "etcd-user",
    group: FINDING,
    values: NAME,
    help: "User of etcd, if it requires one; needs --etcd-password-file",
    more: "The user needs to read the scope's keys, and nothing else.",
    see: "operating/hosts.md#a-user-of-etcd-for-pgnorth",
    example: "pgnorth",
    ..ROW
};

pub(super) const ETCD_PASSWORD_FILE: Setting = Setting {
    flag: "etcd-password-file",
    group: FINDING,
    values: FILE,
    help: "File of the user's password for etcd",
    more: "The file is read at each authentication.",
    example: "/etc/pgnorth/etcd-password",
    ..ROW
};

pub(super) const ETCD_CA: Setting = Setting {
    flag: "etcd-ca",
    group: FINDING,
    values: FILE,
    help: "CA certificates (PEM) that etcd's https certificates are checked against",
    more: "The file is read again when it changes.",
    unset: Unset::Found("the system's"),
    example: "/etc/pgnorth/etcd-ca.crt",
    ..ROW
};

pub(super) const ETCD_CERT: Setting = Setting {
    flag: "etcd-cert",
    group: FINDING,
    values: FILE,
    help: "Client certificate (PEM) to show to etcd; needs --etcd-key",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/etcd.crt",
    ..ROW
};

pub(super) const ETCD_KEY: Setting = Setting {
    flag: "etcd-key",
    group: FINDING,
    values: FILE,
    help: "Private key (PEM) of the client certificate for etcd",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/etcd.key",
    ..ROW
};

pub(super) const SERVICE: Setting = Setting {
    flag: "service",
    group: PUBLISHING,
    values: NAME,
    help: "Service without a selector that pgnorth points at the primary",
    more: "It has exactly one port.",
    see: "operating/publish.md",
    example: "postgres-primary",
    ..ROW
};

pub(super) const ENDPOINTS: Setting = Setting {
    flag: "endpoints",
    group: PUBLISHING,
    values: Values::Switch,
    help: "Write the Service's Endpoints too",
    more: "For clusters whose kube-proxy reads no EndpointSlices (before Kubernetes 1.19).",
    unset: Unset::Value("false"),
    example: "true",
    ..ROW
};

pub(super) const LEASE: Setting = Setting {
    flag: "lease",
    group: PUBLISHING,
    values: NAME,
    help: "Lease that elects one writer among several publishers",
    more: "Without it, all publishers write, and write the same.",
    example: "pgnorth-publish",
    ..ROW
};

pub(super) const HAPROXY: Setting = Setting {
    flag: "haproxy",
    group: COMPARING,
    values: Values::Text("SOURCE", "URL, unix:PATH or file"),
    help: "HAProxy's statistics as CSV, to compare HAProxy with pgnorth: a URL, its socket, or a file",
    more: "pgnorth reads them each second, and four times a second during a change of leader.",
    see: "operating/beside-haproxy.md#haproxy-compared",
    example: "unix:/run/haproxy/admin.sock",
    ..ROW
};

pub(super) const HAPROXY_BACKEND: Setting = Setting {
    flag: "haproxy-backend",
    group: COMPARING,
    values: NAME,
    help: "HAProxy's backend, or listen section, of the primary",
    unset: Unset::Found("the only one with members as servers"),
    example: "primary",
    ..ROW
};

pub(super) const WATCH: Setting = Setting {
    flag: "watch",
    group: REPORT,
    values: Values::Switch,
    help: "Refresh the report until interrupted",
    more: "pgnorth status then refreshes at each change, four times a second at most, and every second; it reconnects when contact is lost.",
    unset: Unset::Value("false"),
    example: "true",
    ..ROW
};

pub(super) const FORMAT: Setting = Setting {
    flag: "format",
    group: REPORT,
    values: Values::Format,
    help: "Format of the report on standard output: text or json",
    more: "json is one object per line.",
    unset: Unset::Value("text"),
    example: "json",
    ..ROW
};

pub(super) const FOR: Setting = Setting {
    flag: "for",
    group: OPERATORS,
    values: Values::Duration(Duration::from_secs(1), HOUR),
    help: "Longest time that new clients wait, unless released earlier",
    unset: Unset::Value("60s"),
    example: "5m",
    ..ROW
};

pub(super) const MEMBER: Setting = Setting {
    flag: "member",
    group: OPERATORS,
    values: NAME,
    help: "Member whose sessions end; by default, all sessions end",
    example: "demo-0",
    ..ROW
};

pub(super) const PID: Setting = Setting {
    flag: "pid",
    group: OPERATORS,
    values: Values::Count(1 << 22),
    help: "Process to replace",
    unset: Unset::Found("systemd's MAINPID, or the only pgnorth of this user"),
    example: "4711",
    ..ROW
};

pub(super) const HOLD: Setting = Setting {
    flag: "hold",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Longest time that a new client waits for a leader before it is refused",
    more: "Choose more than a failover takes (Patroni's ttl and some seconds) if clients wait that long.",
    see: "operating/choosing-hold.md",
    unset: Unset::Value("60s"),
    example: "60s",
    ..ROW
};

pub(super) const FAILOVER_DRAIN: Setting = Setting {
    flag: "failover-drain",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Time for which sessions to a leader that released the lock cleanly may continue",
    more: "A fence never waits.",
    unset: Unset::Value("0s"),
    example: "5s",
    ..ROW
};

pub(super) const SWITCHOVER_HOLD: Setting = Setting {
    flag: "switchover-hold",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Longest time that an announced switchover holds new clients",
    more: "After it, they go to the old leader again.",
    unset: Unset::Value("10s"),
    example: "10s",
    ..ROW
};

pub(super) const CONNECT_TIMEOUT: Setting = Setting {
    flag: "connect-timeout",
    group: SESSIONS,
    values: Values::Duration(Duration::from_millis(10), Duration::from_secs(60)),
    help: "Deadline of one attempt to connect to the leader",
    more: "It includes the name look-up.",
    unset: Unset::Value("1s"),
    example: "1s",
    ..ROW
};

pub(super) const TCP_USER_TIMEOUT: Setting = Setting {
    flag: "tcp-user-timeout",
    group: SESSIONS,
    values: HOST_TIMEOUT,
    help: "Time without any answer of the leader's host after which a session ends",
    more: "It bounds unacknowledged data (TCP_USER_TIMEOUT) and idle connections (keepalive).",
    see: "operating/silent-peers.md",
    unset: Unset::Value("30s"),
    example: "30s",
    ..ROW
};

pub(super) const CLIENT_TCP_USER_TIMEOUT: Setting = Setting {
    flag: "client-tcp-user-timeout",
    group: SESSIONS,
    values: HOST_TIMEOUT,
    help: "Time without any answer of the client's host after which its session ends",
    see: "operating/silent-peers.md",
    unset: Unset::Value("1m"),
    example: "1m",
    ..ROW
};

pub(super) const SOCKET_BUFFERS: Setting = Setting {
    flag: "socket-buffers",
    group: SESSIONS,
    values: Values::Size(1 << 20, 64 << 30),
    help: "Memory for the kernel's socket buffers of slow clients; 0 leaves them to Linux",
    more: "The N-th open session gets an N-th of it, at least 192 KiB. Linux alone may take megabytes per session.",
    see: "operating/memory-and-ports.md",
    unset: Unset::Value("40MiB"),
    example: "40MiB",
    ..ROW
};

pub(super) const TARGET: Setting = Setting {
    flag: "target",
    group: SESSIONS,
    values: Values::Text("TARGET", "postgres, proxy, or a port"),
    help: "Server of a member that sessions go to: PostgreSQL, or the pooler beside it",
    more: "proxy is the pooler that Patroni publishes as proxy_url; a number is the pooler's port on PostgreSQL's host. \
           The member is found and verified in the same way. A pooler that fails is never evidence against its member.",
    see: "operating/pgbouncer.md",
    unset: Unset::Value("postgres"),
    example: "6432",
    ..ROW
};

pub(super) const SOURCE: Setting = Setting {
    flag: "source",
    group: SESSIONS,
    values: Values::Text("ADDRESSES", "IP addresses, comma-separated"),
    help: "Local IP addresses to connect to leaders from, in turn, comma-separated",
    more: "Each has local ports of its own.",
    see: "operating/memory-and-ports.md",
    unset: Unset::Found("the system's choice"),
    example: "10.0.0.5,10.0.0.6",
    ..ROW
};

pub(super) const MAX_SESSIONS: Setting = Setting {
    flag: "max-sessions",
    group: SESSIONS,
    values: Values::Count(1_000_000),
    help: "Limit of open sessions, held clients included; further clients are refused with 53300",
    more: "Each session takes two open files and one local port. A given value that does not fit is lowered at start, with a warning.",
    unset: Unset::Found("10000, or what fits below open files and local ports"),
    example: "10000",
    ..ROW
};

pub(super) const WORKERS: Setting = Setting {
    flag: "workers",
    group: SESSIONS,
    values: Values::Count(1024),
    help: "Threads that serve sessions",
    more: "A session stays on the thread that had the fewest sessions when it began.",
    unset: Unset::Found("one per core"),
    example: "2",
    ..ROW
};

pub(super) const REFUSAL_CERT: Setting = Setting {
    flag: "refusal-cert",
    group: SESSIONS,
    values: FILE,
    help: "Certificate chain (PEM) for TLS clients that are refused; needs --refusal-key",
    more: "It is shown for refusals only. The file is read again when it changes.",
    see: "reference/drivers.md",
    unset: Unset::Found("self-signed, made at start"),
    example: "/etc/pgnorth/refusals/tls.crt",
    ..ROW
};

pub(super) const REFUSAL_KEY: Setting = Setting {
    flag: "refusal-key",
    group: SESSIONS,
    values: FILE,
    help: "Private key (PEM) of that certificate",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/refusals/tls.key",
    ..ROW
};

pub(super) const LAME_DUCK: Setting = Setting {
    flag: "lame-duck",
    group: SHUTDOWN,
    values: UP_TO_AN_HOUR,
    help: "Time after SIGTERM during which clients are still accepted",
    more: "Load balancers need it to notice that pgnorth is no longer ready.",
    unset: Unset::Value("5s"),
    example: "5s",
    ..ROW
};

pub(super) const DRAIN: Setting = Setting {
    flag: "drain",
    group: SHUTDOWN,
    values: Values::Duration(Duration::ZERO, Duration::from_secs(24 * 3600)),
    help: "Time that sessions then have to finish before they are closed",
    more: "On Kubernetes, terminationGracePeriodSeconds must exceed --lame-duck and --drain together.",
    unset: Unset::Value("30s"),
    example: "30s",
    ..ROW
};

pub(super) const POD_NAME: Setting = Setting {
    flag: "pod-name",
    group: LOGS,
    values: NAME,
    help: "Name of this pod; leader changes and fences become Kubernetes Events of it",
    more: "deploy/base sets it.",
    see: "reference/events.md",
    example: "pgnorth-6c9f7d-x2v4q",
    ..ROW
};

pub(super) const POD_UID: Setting = Setting {
    flag: "pod-uid",
    group: LOGS,
    values: Values::Text("UID", "uid"),
    help: "Uid of this pod, by which kubectl describe finds its Events; only with --pod-name",
    more: "deploy/base sets it.",
    example: "0b1c0a4e-6f5b-4b7a-9a55-2f3f6f0c1d7e",
    ..ROW
};

pub(super) const LOG: Setting = Setting {
    flag: "log",
    group: LOGS,
    values: Values::Text("FILTER", "level, or module=level, comma-separated"),
    help: "Log level: off, error, warn, info, debug or trace; also per module",
    more: "info,pgnorth::proxy=debug logs each session.",
    see: "reference/log.md",
    unset: Unset::Value("info"),
    example: "info,pgnorth::proxy=debug",
    ..ROW
};

pub(super) const LOG_FORMAT: Setting = Setting {
    flag: "log-format",
    group: LOGS,
    values: Values::Format,
    help: "Format of the log on standard error: text or json",
    more: "json is one object per line.",
    unset: Unset::Value("text"),
    example: "json",
    ..ROW
};

impl Setting {
    /// Returns the environment variable: `--max-sessions` is PGNORTH_MAX_SESSIONS.
    pub fn env(&self) -> String {
        format!("PGNORTH_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// Returns the default of a setting that has a fixed one.
    pub fn default(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Value(value) => Some(value),
            Unset::Found(_) | Unset::Nothing => None,
        }
    }

    /// Returns the default in words, if what applies is known only at run time.
    pub fn default_in_words(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Found(text) => Some(text),
            Unset::Value(_) | Unset::Nothing => None,
        }
    }

    /// Returns clap's argument. Its own `env` and `default_value` are not used: clap would read the process's
    /// environment by itself, and take an empty variable for a value.
    pub(super) fn argument(&self) -> Arg {
        let default = self.default().or(self.default_in_words());
        let default = default.map_or(String::new(), |text| format!(" [default: {text}]"));
        let (env, help, more) = (self.env(), self.help, self.more);
        let rest = if more.is_empty() {
            String::new()
        } else {
            format!(". {more}")
        };
        let argument = Arg::new(self.flag)
            .long(self.flag)
            .value_name(self.values.placeholder())
            .help(format!("{help}\n[env: {env}]{default}"))
            .long_help(format!("{help}{rest}\n[env: {env}]{default} [values: {}]", self.values))
            .help_heading(self.group)
            .action(if self.repeats {
                ArgAction::Append
            } else {
                ArgAction::Set
            });
        match self.values {
            Values::Switch => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Values::File => argument.value_hint(ValueHint::FilePath),
            _ => argument,
        }
    }
}
