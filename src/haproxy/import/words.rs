//! HAProxy's keywords that need no code. Each has its outcome and, if it is an option within a line, the number of its
//! values. HAProxy's manuals, from 2.6 on, describe them.

use super::Outcome;

/// The outcome of a keyword, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The reason why pgnorth needs no setting.
    NotNeeded(&'static str),
    /// The remaining difference, because pgnorth has no equivalent.
    NoEquivalent(&'static str),
}

use Meaning::{NoEquivalent, NotNeeded};

/// The outcome of a keyword that is in no table.
pub(super) const UNKNOWN: Meaning = NoEquivalent("unknown to pgnorth import");

impl Meaning {
    /// Returns the outcome for this word of a line.
    pub(super) fn of(self, word: &str) -> Outcome {
        match self {
            NotNeeded(why) => Outcome::NotNeeded(format!("{word}: {why}")),
            NoEquivalent(why) => Outcome::NoEquivalent(format!("{word}: {why}")),
        }
    }
}

/// Keywords with the same meaning, separated by `|`.
type Group = (&'static str, Meaning);
/// Keywords with the same meaning, and the number of values that follow each.
type Options = (&'static str, usize, Meaning);

const CHECKS: Meaning = NotNeeded("pgnorth asks members as often as Patroni's ttl requires");
const TLS_TO_POSTGRES: Meaning =
    NoEquivalent("pgnorth passes TLS between client and PostgreSQL through, and adds none");
const TLS_FROM_CLIENTS: Meaning =
    NoEquivalent("pgnorth does not terminate TLS: clients negotiate it with PostgreSQL through pgnorth");
const TLS_TUNING: Meaning =
    NotNeeded("pgnorth uses TLS 1.2 or 1.3 for the REST API, and does not terminate TLS in sessions");
const QUEUE: Meaning = NoEquivalent(
    "pgnorth has no limit per server: PostgreSQL's max_connections, or the pooler, limits the sessions of a member",
);
const HEADER: Meaning = NoEquivalent("pgnorth does not send the PROXY protocol header");
const NAMES: Meaning = NotNeeded("pgnorth resolves a name at each connection, with the system's resolver");
const AGENT: Meaning =
    NoEquivalent("pgnorth does not ask agents; to exclude a replica, set Patroni's tag noloadbalance on it");
const PROCESS: Meaning = NotNeeded("pgnorth's systemd unit or container sets this");
const HTTP: Meaning = NotNeeded("it applies only to HTTP");
const LOGS: Meaning = NotNeeded("pgnorth logs to standard error; see --log and --log-format");
const KERNEL: Meaning = NotNeeded("pgnorth sets up its sockets and threads itself");
const UNIX: Meaning = NoEquivalent("pgnorth listens only on TCP");

/// Options of `server` and `default-server`. Options that `server.rs` reads are not listed.
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
        NoEquivalent(
            "pgnorth verifies the name or address in the URL: in --patroni, use names that are in the certificate",
        ),
    ),
    (
        "crl-file",
        1,
        NoEquivalent("pgnorth does not read certificate revocation lists"),
    ),
    (
        "track",
        1,
        NoEquivalent("import does not follow it: write the other server's check on this line, and import again"),
    ),
    (
        "disabled",
        0,
        NoEquivalent("pgnorth uses every fit member; to exclude a replica, set Patroni's tag noloadbalance on it"),
    ),
    (
        "cookie|redir|max-reuse|pool-low-conn|pool-max-conn|pool-purge-delay|proto|ws",
        1,
        HTTP,
    ),
    ("id", 1, NotNeeded("pgnorth identifies members by name")),
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
            "set --proxy-protocol-from to the networks of the load balancers: pgnorth accepts the header only from those",
        ),
    ),
    (
        "accept-netscaler-cip",
        1,
        NoEquivalent("pgnorth supports only the PROXY protocol"),
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
    ("v4v6", 0, NotNeeded("[::] also accepts IPv4")),
    ("v6only", 0, NoEquivalent("[::] also accepts IPv4")),
    ("backlog|mss|nice|process|thread|shards|proto", 1, KERNEL),
    ("tfo|defer-accept", 0, KERNEL),
    (
        "name|id|level|severity-output",
        1,
        NotNeeded("a route is identified by its address"),
    ),
    ("mode|user|group|uid|gid", 1, UNIX),
    ("expose-fd", 1, NotNeeded("a reload hands the listeners over")),
];

/// Keywords of `global`.
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
        NotNeeded("the admin port shows the state: pgnorth status, /status, /metrics"),
    ),
    (
        "ca-base|crt-base",
        NotNeeded("import adds it to the relative paths below"),
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
        NoEquivalent("no limit of the rate of new connections; each listener connects at most 64 clients at a time"),
    ),
    (
        "lua-load|lua-load-per-thread|lua-prepend-path",
        NoEquivalent("pgnorth runs no scripts"),
    ),
    (
        "grace",
        NoEquivalent("pgnorth has --lame-duck, the time for which it still accepts clients after SIGTERM"),
    ),
    (
        "setenv|presetenv|unsetenv|resetenv",
        NotNeeded("import reports the lines that use variables"),
    ),
];

/// Keywords of `defaults`, `listen`, `frontend` and `backend`; `option`, `timeout` and `http-check` include the next
/// word.
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
        NotNeeded("pgnorth uses splice(2) for streams, if the system permits it"),
    ),
    (
        "option tcp-smart-accept|option tcp-smart-connect|option nolinger|backlog",
        KERNEL,
    ),
    (
        "option redispatch|retries|option persist",
        NotNeeded(
            "a client that cannot be connected waits for the primary, or tries the next replica, for up to --hold",
        ),
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
        NotNeeded("clients do not queue for a server; --hold limits the time that they wait for a member"),
    ),
    (
        "timeout client-fin|timeout server-fin|timeout tarpit",
        NotNeeded("a half-closed session stays until both sides close, or a host stops responding"),
    ),
    (
        "timeout client|timeout server|timeout tunnel",
        NoEquivalent("pgnorth does not close idle sessions; PostgreSQL's idle_session_timeout can"),
    ),
    (
        "http-check disable-on-404|http-check send-state|http-check comment|http-check set-var|\
         http-check unset-var",
        CHECKS,
    ),
    (
        "maxconn|fullconn",
        NoEquivalent("there is no limit per section: all routes share --max-sessions"),
    ),
    (
        "rate-limit",
        NoEquivalent("no limit of the rate of new connections; each listener connects at most 64 clients at a time"),
    ),
    (
        "acl|tcp-request|tcp-response|filter",
        NoEquivalent("pgnorth does not inspect connections: restrict clients with a firewall or pg_hba.conf"),
    ),
    ("http-request|http-response|http-after-response|redirect", HTTP),
    (
        "default_backend|use-server|server-state-file-name|load-server-state-from-file|hash-type|\
         hash-balance-factor",
        NoEquivalent("pgnorth chooses the member itself"),
    ),
    ("option allbackups", NotNeeded("every fit member gets clients")),
    (
        "option pgsql-check|option tcp-check|tcp-check|option mysql-check|option ssl-hello-chk|\
         option external-check|external-check",
        NoEquivalent("pgnorth asks only Patroni, and notices a failing server by its own connections"),
    ),
    ("stats", NotNeeded("the admin port shows the state")),
    (
        "email-alert",
        NoEquivalent("alerts come from the metrics: deploy/ has rules for Prometheus"),
    ),
    ("description|id|guid", NotNeeded("pgnorth has no such labels")),
    ("enabled", NotNeeded("it is the default")),
    (
        "disabled",
        NoEquivalent("HAProxy does not listen here: remove the routes below that you do not want"),
    ),
    (
        "option transparent",
        NoEquivalent("pgnorth connects only to the members that Patroni lists"),
    ),
];

/// Returns the meaning of a keyword in one of the tables of directives.
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
