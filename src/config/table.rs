//! One row a setting: its flag, default, help and an example. The environment variable follows from the flag.

use clap::{Arg, ArgAction, Command};

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

const LISTENING: &str = "Listening";
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

pub(super) const SCOPE: Setting = Setting {
    flag: "scope",
    group: FINDING,
    value: "NAME",
    help: "Patroni's scope: the cluster to follow through the Kubernetes API",
    unset: Unset::Nothing,
    good: "demo",
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
    unset: Unset::Found("cluster-name=<scope>"),
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

pub(super) const HOLD: Setting = Setting {
    flag: "hold",
    group: SESSIONS,
    value: "DURATION",
    help: "How long a new client waits for a leader before it is refused",
    unset: Unset::Value("30s"),
    good: "30s",
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
    help: "How long sent data may stay unacknowledged before the other side counts as gone",
    unset: Unset::Value("10s"),
    good: "10s",
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
    help: "Threads that move bytes; a session stays on one",
    unset: Unset::Found("one a core"),
    good: "2",
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

/// Every setting, in the order of the help.
pub(super) const ALL: [&Setting; 20] = [
    &LISTEN,
    &ADMIN,
    &SCOPE,
    &NAMESPACE,
    &SELECTOR,
    &PATRONI,
    &PATRONI_CA,
    &PATRONI_CERT,
    &PATRONI_KEY,
    &HOLD,
    &SWITCHOVER_HOLD,
    &FAILOVER_DRAIN,
    &CONNECT_TIMEOUT,
    &TCP_USER_TIMEOUT,
    &MAX_SESSIONS,
    &WORKERS,
    &LAME_DUCK,
    &DRAIN,
    &LOG,
    &LOG_FORMAT,
];

const EXAMPLES: &str = "\
Examples:
  pgnorth --scope demo
      in Kubernetes: follow the Patroni cluster `demo` in the pod's namespace
  pgnorth --patroni http://10.0.0.1:8008,http://10.0.0.2:8008
      anywhere else: ask the members themselves

A flag wins over its environment variable; an empty variable counts as unset.
Durations have units: 500ms, 30s, 1m30s.";

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
    fn argument(&self) -> Arg {
        let default = match self.unset {
            Unset::Value(text) | Unset::Found(text) => format!(" [default: {text}]"),
            Unset::Nothing => String::new(),
        };
        Arg::new(self.flag)
            .long(self.flag)
            .value_name(self.value)
            .help(format!("{}\n[env: {}]{default}", self.help, self.env()))
            .help_heading(self.group)
            .action(ArgAction::Set)
    }
}

/// The command line. Without a subcommand it runs the proxy; a subcommand would be added here, and told apart by the caller of `try_get_matches_from`.
pub(super) fn command() -> Command {
    Command::new("pgnorth")
        .version(concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("PGNORTH_COMMIT"),
            ")"
        ))
        .about("Keeps one address pointing at the PostgreSQL primary of a Patroni cluster.")
        .args(ALL.map(Setting::argument))
        // clap's own two stand first, under a heading of theirs.
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(about("help", 'h', ArgAction::Help, "Print this"))
        .arg(about("version", 'V', ArgAction::Version, "Print version and commit"))
        .after_help(EXAMPLES)
        .max_term_width(120)
}

fn about(name: &'static str, short: char, action: ArgAction, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .short(short)
        .action(action)
        .help(help)
        .help_heading("About pgnorth")
}
