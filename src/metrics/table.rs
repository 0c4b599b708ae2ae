//! One row a metric: its name, kind, labels and help text. The reference documentation is written from these rows.

/// A metric as Prometheus sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name, with its base unit and, for a counter, `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The labels' names.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in the buckets of [`SECONDS`].
    Histogram,
}

impl Kind {
    /// Returns the type's name in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The upper bounds of every histogram, in seconds: from a warm dial to a slow failover. They are closer together where
/// failovers of dead leaders lie, which take Patroni's ttl (30 s unless changed) and some seconds.
pub const SECONDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0,
    120.0,
];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        labels,
        help,
    }
}

/// Declares each row as a constant, and all of them as one list in the same order.
macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, [$($label:literal),*], $help:literal);)+) => {
        $(pub(super) const $constant: Family = $kind($name, &[$($label),*], $help);)+
        /// Every metric there is, in the order of the reference documentation.
        pub const FAMILIES: &[Family] = &[$($constant),+];
    };
}

families! {
    ACCEPTED = counter("pgnorth_accepted_total", [], "Client connections accepted.");
    PENDING_CLIENTS = gauge("pgnorth_pending_clients", [], "Connected clients that have not sent a whole first packet yet; they are not sessions.");
    ACCEPT_ERRORS = counter("pgnorth_accept_errors_total", [], "Calls of accept(2) that failed for lack of file descriptors or memory.");
    SESSIONS = gauge("pgnorth_sessions", ["state"], "Open sessions by state: held, dialling, forwarding.");
    SESSIONS_MAX = gauge("pgnorth_sessions_max", [], "Limit of open sessions in force.");
    LOCAL_PORTS = gauge("pgnorth_local_ports", [], "Local ports for connections to one leader: net.ipv4.ip_local_port_range, for each address of --source.");
    POOLER_FAILURES = counter("pgnorth_pooler_failures_total", ["route", "target"], "Dials, logins and sessions that a member's pooler failed, by route and target (--target, or the route's own).");
    DIALS_WITHOUT_PORT = counter("pgnorth_dials_without_port_total", [], "Attempts to connect to the leader that found no free local port.");
    SESSIONS_ENDED = counter("pgnorth_sessions_ended_total", ["ending"], "Ended sessions by ending.");
    FORWARDED_BYTES = counter("pgnorth_forwarded_bytes_total", ["direction"], "Bytes delivered by direction: client_to_leader, leader_to_client.");
    OLDEST_WAIT_SECONDS = gauge("pgnorth_oldest_wait_seconds", [], "Wait time of the longest-held client; 0 if none is held.");
    HOLD_SECONDS = histogram("pgnorth_hold_seconds", [], "Time from accept until the dial that reached the leader, or until pgnorth gave the client up.");
    DIAL_SECONDS = histogram("pgnorth_dial_seconds", ["outcome"], "Time to connect to the leader's PostgreSQL by outcome: ok, failed, timed_out.");
    ROUTING = gauge("pgnorth_routing", [], "1 while new clients are sent to a leader; 0 while they are held.");
    ROUTING_STATE_INFO = gauge("pgnorth_routing_state_info", ["state", "reason"], "1 for the routing state in force (route, hold, fence) and its reason; 0 for former ones. During an operator's hold, the reason that would apply without it.");
    HELD_BY_OPERATOR = gauge("pgnorth_held_by_operator", [], "1 while an operator holds new clients through POST /hold.");
    LEADER_INFO = gauge("pgnorth_leader_info", ["member"], "1 for the member whose sessions may live now; 0 for former ones.");
    ROUTE_OPEN = gauge("pgnorth_route_open", ["route", "port"], "1 while new clients of this route go to a member; 0 while they are held.");
    ROUTE_MEMBER_UNFIT = gauge("pgnorth_route_member_unfit", ["route", "port", "member", "reason"], "1 for a member that gets no new clients of this route, and the reason; 0 for former reasons.");
    ROUTE_MEMBER_FIT = gauge("pgnorth_route_member_fit", ["route", "port", "member"], "1 for a member that gets new clients of this route; 0 for others.");
    ROUTE_SESSIONS = gauge("pgnorth_route_sessions", ["route", "port", "member"], "Sessions to a member on this route, including clients that dial it.");
    PRIMARIES = gauge("pgnorth_primaries", [], "Members that report to be a running primary: in a fresh answer of their REST API; or, for members that are not asked while the lock is watched, in a status in the DCS written after the lock moved.");
    FOREIGN_ANSWERS = gauge("pgnorth_foreign_answers", [], "Members and URLs of --patroni whose newest answer came from another cluster; pgnorth ignores such answers.");
    LEADER_CHANGES = counter("pgnorth_leader_changes_total", [], "Changes of the leader that sessions are sent to.");
    FENCES = counter("pgnorth_fences_total", [], "Times that all sessions were ended because the leader's lock may have expired.");
    FAILOVER_SECONDS = histogram("pgnorth_failover_seconds", ["phase"], "Duration of changes of leader by phase. total: from the first sign until the new leader was verified to accept writes. lock: from the first sign until the lock named it. promotion: from there to the verification. cut: from the decision until the last session to the old leader was closed. first_session: from the verification until a waiting client was through.");
    LOCK_AGE_SECONDS = gauge("pgnorth_lock_age_seconds", [], "Time since the leader's lock was last seen renewed; without a lock to watch, since the leader last answered.");
    LOCK_TTL_SECONDS = gauge("pgnorth_lock_ttl_seconds", [], "Patroni's ttl.");
    SOURCE_UP = gauge("pgnorth_source_up", ["source"], "1 while a source of discovery answers: kubernetes (with --scope), etcd (with --etcd), patroni.");
    PROBES = counter("pgnorth_probes_total", ["outcome"], "Requests to members' REST API by outcome: ok, failed, timed_out.");
    PUBLISHES = counter("pgnorth_publishes_total", ["result"], "pgnorth publish: attempts to update the Service by result: written, unchanged, conflict (another publisher wrote first), yielded (another publisher contradicts this one), failed.");
    PUBLISH_SECONDS = histogram("pgnorth_publish_seconds", [], "pgnorth publish: time from a decision until the Service was updated.");
    PUBLISH_BEHIND = gauge("pgnorth_publish_behind", [], "pgnorth publish: 1 while the Service differs from what this publisher has decided.");
    HAPROXY_READABLE = gauge("pgnorth_haproxy_readable", [], "pgnorth watch --haproxy: 1 while HAProxy's statistics can be read.");
    HAPROXY_AGREES = gauge("pgnorth_haproxy_agrees", [], "pgnorth watch --haproxy: 1 while HAProxy has exactly the primary up.");
    HAPROXY_STALE_SESSIONS = gauge("pgnorth_haproxy_stale_sessions", [], "pgnorth watch --haproxy: sessions through HAProxy to members that do not lead.");
    HAPROXY_SECONDS = histogram("pgnorth_haproxy_seconds", ["what"], "pgnorth watch --haproxy: times of each report. wrong: HAProxy had a member up that was not the primary. refused: it had none up. stale_sessions: sessions were open to a member that had ceased to lead.");
    LOG_LINES_LOST = counter("pgnorth_log_lines_lost_total", [], "Log lines that were lost because nothing read standard error.");
    CLUSTER_INFO = gauge("pgnorth_cluster_info", ["scope"], "1 for the scope of the cluster that is followed, which is empty until it is known; 0 for a former one.");
    BUILD_INFO = gauge("pgnorth_build_info", ["version", "commit"], "1 for this build.");
    // A name that every exporter of Prometheus' own libraries has.
    PROCESS_START = gauge("process_start_time_seconds", [], "Start time of the process, in seconds since 1970-01-01 UTC.");
}
