//! The rows of the settings for sessions.

use std::time::Duration;

use super::{FILE, HOST_TIMEOUT, ROW, SESSIONS, Setting, UP_TO_AN_HOUR, Unset, Values};

pub(in crate::config) const HOLD: Setting = Setting {
    flag: "hold",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Longest time that a new client waits for a leader or a fit replica before it is refused",
    more: "Set it longer than a failover takes (Patroni's ttl plus a few seconds) if your clients' own timeouts allow that.",
    see: "operating/choosing-hold.md",
    unset: Unset::Value("60s"),
    example: "60s",
    ..ROW
};

pub(in crate::config) const FAILOVER_DRAIN: Setting = Setting {
    flag: "failover-drain",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Time for which sessions to a leader that released the lock cleanly may continue",
    more: "A fence still ends sessions immediately.",
    unset: Unset::Value("0s"),
    example: "5s",
    ..ROW
};

pub(in crate::config) const SWITCHOVER_HOLD: Setting = Setting {
    flag: "switchover-hold",
    group: SESSIONS,
    values: UP_TO_AN_HOUR,
    help: "Longest time that an announced switchover holds new clients",
    more: "After that, they go to the old leader again.",
    unset: Unset::Value("10s"),
    example: "10s",
    ..ROW
};

pub(in crate::config) const CONNECT_TIMEOUT: Setting = Setting {
    flag: "connect-timeout",
    group: SESSIONS,
    values: Values::Duration(Duration::from_millis(10), Duration::from_secs(60)),
    help: "Deadline of one attempt to connect to a member",
    more: "It includes the name look-up.",
    unset: Unset::Value("1s"),
    example: "1s",
    ..ROW
};

pub(in crate::config) const TCP_USER_TIMEOUT: Setting = Setting {
    flag: "tcp-user-timeout",
    group: SESSIONS,
    values: HOST_TIMEOUT,
    help: "Time without an answer from the member's host after which a session ends",
    more: "It applies to unacknowledged data (TCP_USER_TIMEOUT) and idle connections (keepalive).",
    see: "operating/silent-peers.md",
    unset: Unset::Value("30s"),
    example: "30s",
    ..ROW
};

pub(in crate::config) const CLIENT_TCP_USER_TIMEOUT: Setting = Setting {
    flag: "client-tcp-user-timeout",
    group: SESSIONS,
    values: HOST_TIMEOUT,
    help: "Time without an answer from the client's host after which its session ends",
    see: "operating/silent-peers.md",
    unset: Unset::Value("1m"),
    example: "1m",
    ..ROW
};

pub(in crate::config) const SOCKET_BUFFERS: Setting = Setting {
    flag: "socket-buffers",
    group: SESSIONS,
    values: Values::Size(1 << 20, 64 << 30),
    help: "Memory for the kernel's socket buffers of slow clients; 0 leaves them to Linux",
    more: "The N-th open session gets 1/N of this memory, at least 192 KiB. Without the limit, Linux may use megabytes \
           per session.",
    see: "operating/memory-and-ports.md",
    unset: Unset::Value("40MiB"),
    example: "40MiB",
    ..ROW
};

pub(in crate::config) const TARGET: Setting = Setting {
    flag: "target",
    group: SESSIONS,
    values: Values::Text("TARGET", "postgres, proxy, or a port"),
    help: "Server on each member that sessions go to: PostgreSQL, or the pooler beside it",
    more: "proxy is the pooler that Patroni publishes as proxy_url; a number is the pooler's port on PostgreSQL's host. \
           The key target of a route overrides it. pgnorth finds and verifies the member in the same way for every \
           target. A failing pooler never counts against its member.",
    see: "operating/pgbouncer.md",
    unset: Unset::Value("postgres"),
    example: "6432",
    ..ROW
};

pub(in crate::config) const SOURCE: Setting = Setting {
    flag: "source",
    group: SESSIONS,
    values: Values::Text("ADDRESSES", "IP addresses, comma-separated"),
    help: "Local IP addresses for connections to members, used in turn, comma-separated",
    more: "Each address has its own range of local ports.",
    see: "operating/memory-and-ports.md",
    unset: Unset::Found("the system's choice"),
    example: "10.0.0.5,10.0.0.6",
    ..ROW
};

pub(in crate::config) const MAX_SESSIONS: Setting = Setting {
    flag: "max-sessions",
    group: SESSIONS,
    values: Values::Count(1_000_000),
    help: "Limit of open sessions, held clients included; further clients are refused with SQLSTATE 53300",
    more: "Each session uses two open files and one local port. A value that does not fit is lowered at start, with a \
           warning.",
    unset: Unset::Found("10000, or fewer if open files or local ports do not suffice"),
    example: "10000",
    ..ROW
};

pub(in crate::config) const WORKERS: Setting = Setting {
    flag: "workers",
    group: SESSIONS,
    values: Values::Count(1024),
    help: "Threads that serve sessions",
    more: "A session stays on the thread that had the fewest sessions when it began.",
    unset: Unset::Found("one per core"),
    example: "2",
    ..ROW
};

pub(in crate::config) const REFUSAL_CERT: Setting = Setting {
    flag: "refusal-cert",
    group: SESSIONS,
    values: FILE,
    help: "Certificate chain (PEM) for TLS clients that are refused; needs --refusal-key",
    more: "It is used for refusals only. The file is read again when it changes.",
    see: "reference/drivers.md",
    unset: Unset::Found("self-signed, made at start"),
    example: "/etc/pgnorth/refusals/tls.crt",
    ..ROW
};

pub(in crate::config) const REFUSAL_KEY: Setting = Setting {
    flag: "refusal-key",
    group: SESSIONS,
    values: FILE,
    help: "Private key (PEM) of the refusal certificate",
    more: "The file is read again when it changes.",
    example: "/etc/pgnorth/refusals/tls.key",
    ..ROW
};
