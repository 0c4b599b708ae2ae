//! HAProxy's words that need no code: each with the number of its values, if it is an option within a line, and with what
//! becomes of it. HAProxy 2.6's manual has them all.

use super::Outcome;

/// The outcome of a word, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// pgnorth needs no setting, because of this.
    NotNeeded(&'static str),
    /// pgnorth has no equivalent; this is the difference.
    NoEquivalent(&'static str),
}

use Meaning::{NoEquivalent, NotNeeded};

/// The outcome of a word that is in no table.
pub(super) const UNKNOWN: Meaning = NoEquivalent("import does not know this word");

impl Meaning {
    /// Returns the outcome for this word of a line.
    pub(super) fn of(self, word: &str) -> Outcome {
        match self {
            NotNeeded(why) => Outcome::NotNeeded(format!("{word}: {why}")),
            NoEquivalent(why) => Outcome::NoEquivalent(format!("{word}: {why}")),
        }
    }
}

/// Words that have the same meaning, separated by `|`.
type Group = (&'static str, Meaning);
/// The same, with the number of values that follow each word.
type Options = (&'static str, usize, Meaning);

const CHECKS: Meaning = NotNeeded("the lock is watched, and members are asked at the pace that Patroni's ttl requires");
const TLS_TO_POSTGRES: Meaning =
    NoEquivalent("pgnorth passes TLS between client and PostgreSQL through, and adds none");
const TLS_FROM_CLIENTS: Meaning =
    NoEquivalent("pgnorth ends no TLS: clients negotiate it with PostgreSQL through pgnorth");
const TLS_TUNING: Meaning =
    NotNeeded("pgnorth uses TLS 1.2 and 1.3 for the REST API, and none of its own for sessions");
const QUEUE: Meaning = NoEquivalent(
    "no limit of a single server: max_connections of PostgreSQL, or the pooler, limits what reaches a member",
);
const HEADER: Meaning = NoEquivalent("pgnorth sends no header of the PROXY protocol");
const NAMES: Meaning = NotNeeded("names are resolved at each dial, by the system's resolver");
const AGENT: Meaning =
    NoEquivalent("pgnorth asks no agent; to take a replica out, give it Patroni's tag noloadbalance");
const PROCESS: Meaning = NotNeeded("pgnorth's service unit or container has its own");
const HTTP: Meaning = NotNeeded("it concerns HTTP alone");
const LOGS: Meaning = NotNeeded("pgnorth logs to standard error; see --log and --log-format");
const KERNEL: Meaning = NotNeeded("pgnorth sets the socket options itself");
const UNIX: Meaning = NoEquivalent("pgnorth listens on TCP alone");

/// Options of `server` and `default-server`. Those that the code reads are not here.
pub(super) const SERVER: &[Options] = &[
    (
        "inter|fastinter|downinter|fall|rise|error-limit|observe|on-error",
        1,
        CHECKS,
    ),
    ("check-proto|check-alpn", 1, CHECKS),
    ("ssl|ssl-reuse|no-ssl-reuse|allow-0rtt", 0, TLS_TO_POSTGRES),
    ("sni", 1, TLS_TO_POSTGRES),
    ("alpn|npn|ciphers|ciphersuites|ssl-max-ver|ssl-min-ver", 1, TLS_TUNING),
    (
        "force-sslv3|force-tlsv10|force-tlsv11|force-tlsv12|force-tlsv13",
        0,
        TLS_TUNING,
    ),
    (
        "no-sslv3|no-tlsv10|no-tlsv11|no-tlsv12|no-tlsv13|no-tls-tickets|tls-tickets",
        0,
        TLS_TUNING,
    ),
    (
        "no-ssl|no-check-ssl|no-verifyhost|no-backup|no-agent-check|enabled|non-stick|stick",
        0,
        NotNeeded("it is the default"),
    ),
    (
        "no-send-proxy|no-send-proxy-v2|no-send-proxy-v2-ssl|no-send-proxy-v2-ssl-cn",
        0,
        NotNeeded("it is the default"),
    ),
    ("maxconn|maxqueue|minconn", 1, QUEUE),
    (
        "send-proxy|send-proxy-v2|send-proxy-v2-ssl|send-proxy-v2-ssl-cn|check-send-proxy",
        0,
        HEADER,
    ),
    ("proxy-v2-options", 1, HEADER),
    ("init-addr|resolvers|resolve-opts|resolve-prefer|resolve-net", 1, NAMES),
    ("agent-check", 0, AGENT),
    ("agent-send|agent-inter|agent-addr|agent-port", 1, AGENT),
    (
        "slowstart",
        1,
        NotNeeded("a replica that becomes fit gets its share of the sessions over 30 s"),
    ),
    (
        "verifyhost|check-sni",
        1,
        NoEquivalent("pgnorth checks the name or address in the URL: use names that the certificate has in --patroni"),
    ),
    (
        "crl-file",
        1,
        NoEquivalent("pgnorth reads no list of revoked certificates"),
    ),
    (
        "track",
        1,
        NoEquivalent("import does not follow it: give the server the check itself, and import again"),
    ),
    (
        "disabled",
        0,
        NoEquivalent("pgnorth leads to every fit member; to take a replica out, give it Patroni's tag noloadbalance"),
    ),
    (
        "cookie|redir|max-reuse|pool-low-conn|pool-max-conn|pool-purge-delay|proto|ws",
        1,
        HTTP,
    ),
    ("id", 1, NotNeeded("members have names")),
    ("log-proto", 1, LOGS),
    ("tfo|no-tfo", 0, KERNEL),
    (
        "namespace",
        1,
        NoEquivalent("pgnorth uses the network namespace that it is started in"),
    ),
    ("socks4", 1, NoEquivalent("pgnorth connects directly")),
    ("check-via-socks4", 0, NoEquivalent("pgnorth connects directly")),
];

/// Options of `bind`.
pub(super) const BIND: &[Options] = &[
    (
        "accept-proxy",
        0,
        NoEquivalent(
            "set --proxy-protocol-from to the networks of the load balancers: pgnorth takes the header from nobody else",
        ),
    ),
    (
        "accept-netscaler-cip",
        1,
        NoEquivalent("pgnorth knows the PROXY protocol alone"),
    ),
    (
        "ssl|allow-0rtt|strict-sni|generate-certificates|no-ca-names|prefer-client-ciphers",
        0,
        TLS_FROM_CLIENTS,
    ),
    (
        "crt|crt-list|ca-file|ca-sign-file|ca-sign-pass|ca-verify-file|crl-file|verify|alpn|npn",
        1,
        TLS_FROM_CLIENTS,
    ),
    (
        "ciphers|ciphersuites|curves|ecdhe|ssl-min-ver|ssl-max-ver|tls-ticket-keys",
        1,
        TLS_FROM_CLIENTS,
    ),
    ("ca-ignore-err|crt-ignore-err", 1, TLS_FROM_CLIENTS),
    (
        "force-sslv3|force-tlsv10|force-tlsv11|force-tlsv12|force-tlsv13",
        0,
        TLS_FROM_CLIENTS,
    ),
    (
        "no-sslv3|no-tlsv10|no-tlsv11|no-tlsv12|no-tlsv13|no-tls-tickets",
        0,
        TLS_FROM_CLIENTS,
    ),
    (
        "interface",
        1,
        NoEquivalent("pgnorth listens on an address, not on an interface"),
    ),
    (
        "transparent",
        0,
        NoEquivalent("set net.ipv4.ip_nonlocal_bind to listen on an address that the host does not have yet"),
    ),
    (
        "namespace",
        1,
        NoEquivalent("pgnorth uses the network namespace that it is started in"),
    ),
    ("maxconn", 1, NoEquivalent("all routes share --max-sessions")),
    ("v4v6", 0, NotNeeded("[::] takes IPv4 too")),
    ("v6only", 0, NoEquivalent("[::] takes IPv4 too")),
    ("backlog|mss|nice|process|thread|shards|proto", 1, KERNEL),
    ("tfo|defer-accept", 0, KERNEL),
    (
        "name|id|level|severity-output",
        1,
        NotNeeded("routes have their addresses as names"),
    ),
    ("mode|user|group|uid|gid", 1, UNIX),
    ("expose-fd", 1, NotNeeded("a reload hands the listeners over")),
];

/// Words of `global`.
pub(super) const GLOBAL: &[Group] = &[
    (
        "user|group|uid|gid|chroot|daemon|pidfile|master-worker|ulimit-n|set-dumpable|nbproc|cpu-map|node|\
         description|setcap|numa-cpu-mapping|thread-groups|strict-limits|localpeer|\
         expose-experimental-directives|insecure-fork-wanted|mworker-max-reloads|server-state-base|\
         server-state-file",
        PROCESS,
    ),
    ("log|log-send-hostname|log-tag|quiet|zero-warning", LOGS),
    (
        "stats",
        NotNeeded("the admin port has the state: pgnorth status, /status, /metrics"),
    ),
    (
        "ca-base|crt-base",
        NotNeeded("relative paths below are completed with it"),
    ),
    (
        "ssl-default-bind-ciphers|ssl-default-bind-ciphersuites|ssl-default-bind-options|\
         ssl-default-server-ciphers|ssl-default-server-ciphersuites|ssl-default-server-options|\
         ssl-default-bind-curves|ssl-dh-param-file|ssl-server-verify|ssl-load-extra-files|\
         ssl-skip-self-issued-ca|ssl-propquery|ssl-provider",
        TLS_TUNING,
    ),
    ("spread-checks|external-check|max-spread-checks", CHECKS),
    (
        "maxpipes|maxsslconn|noepoll|nosplice|busy-polling|nogetaddrinfo|noreuseport",
        KERNEL,
    ),
    (
        "maxconnrate|maxsessrate|maxsslrate",
        NoEquivalent("pgnorth does not limit the rate of new connections; it connects 64 clients at a time"),
    ),
    (
        "lua-load|lua-load-per-thread|lua-prepend-path",
        NoEquivalent("pgnorth runs no scripts"),
    ),
    (
        "grace",
        NoEquivalent("--lame-duck is the time in which clients are still accepted at a stop"),
    ),
    (
        "setenv|presetenv|unsetenv|resetenv",
        NotNeeded("lines that use variables are named"),
    ),
];

/// Words of `defaults`, `listen`, `frontend` and `backend`; of `option`, `timeout` and `http-check` the word after it.
pub(super) const PROXY: &[Group] = &[
    (
        "log|log-format|log-tag|log-format-sd|error-log-format|unique-id-format|option tcplog|option httplog|\
         option dontlognull|option dontlog-normal|option log-separate-errors|option logasap|\
         option log-health-checks|option socket-stats|option httpslog",
        LOGS,
    ),
    ("mode", NotNeeded("pgnorth forwards TCP")),
    (
        "option tcpka|option clitcpka|option srvtcpka|clitcpka-cnt|clitcpka-idle|clitcpka-intvl|srvtcpka-cnt|\
         srvtcpka-idle|srvtcpka-intvl",
        NotNeeded("keepalive is always on: see --tcp-user-timeout and --client-tcp-user-timeout"),
    ),
    (
        "option splice-auto|option splice-request|option splice-response",
        NotNeeded("pgnorth always uses splice(2)"),
    ),
    (
        "option tcp-smart-accept|option tcp-smart-connect|option nolinger|backlog",
        KERNEL,
    ),
    (
        "option redispatch|retries|option persist",
        NotNeeded("a client whose dial fails waits for the primary, or gets the next replica, until --hold"),
    ),
    (
        "option http-keep-alive|option httpclose|option http-server-close|option forwardfor|\
         option abortonclose|option http-ignore-probes|option http-buffer-request|option prefer-last-server|\
         option originalto|http-reuse|errorfile|errorfiles|compression|option contstats|option checkcache|\
         option http-pretend-keepalive|option http-no-delay|option accept-invalid-http-request|\
         option accept-invalid-http-response",
        HTTP,
    ),
    ("timeout http-request|timeout http-keep-alive", HTTP),
    ("timeout check", CHECKS),
    (
        "timeout queue",
        NotNeeded("no client waits for a place at a server; --hold is the time that one waits for a member"),
    ),
    (
        "timeout client-fin|timeout server-fin|timeout tarpit",
        NotNeeded("half-closed sessions stay until both sides close, or a host does not answer"),
    ),
    (
        "timeout client|timeout server|timeout tunnel",
        NoEquivalent("pgnorth closes no idle session; PostgreSQL's idle_session_timeout does, if that is wanted"),
    ),
    (
        "http-check disable-on-404|http-check send-state|http-check comment|http-check set-var|\
         http-check unset-var",
        CHECKS,
    ),
    (
        "maxconn|fullconn",
        NoEquivalent("a limit of this section: all routes share --max-sessions"),
    ),
    (
        "rate-limit",
        NoEquivalent("pgnorth does not limit the rate of new connections; it connects 64 clients at a time"),
    ),
    (
        "acl|tcp-request|tcp-response|filter",
        NoEquivalent("pgnorth looks into no connection: limit clients with a firewall or pg_hba.conf"),
    ),
    ("http-request|http-response|http-after-response|redirect", HTTP),
    (
        "default_backend|use-server|server-state-file-name|load-server-state-from-file|hash-type|\
         hash-balance-factor",
        NoEquivalent("pgnorth chooses the member itself"),
    ),
    ("option allbackups", NotNeeded("all fit members get clients")),
    (
        "option pgsql-check|option tcp-check|tcp-check|option mysql-check|option ssl-hello-chk|\
         option external-check|external-check",
        NoEquivalent("pgnorth asks Patroni alone, and learns from its own connections that a server fails"),
    ),
    ("stats", NotNeeded("the admin port has the state")),
    (
        "email-alert",
        NoEquivalent("alerts come from the metrics: deploy/ has rules for Prometheus"),
    ),
    ("description|id|disabled|enabled|guid|option transparent", PROCESS),
];

/// Returns the meaning of a word in one of the tables of directives.
pub(super) fn directive(table: &[Group], word: &str) -> Meaning {
    let found = table
        .iter()
        .find(|(words, _)| words.split('|').any(|other| other == word));
    found.map_or(UNKNOWN, |(_, meaning)| *meaning)
}

/// Returns the number of values and the meaning of an option.
pub(super) fn option(table: &[Options], word: &str) -> Option<(usize, Meaning)> {
    let found = table
        .iter()
        .find(|(words, ..)| words.split('|').any(|other| other == word));
    found.map(|(_, values, meaning)| (*values, *meaning))
}
