//! One row for each metric: its name, kind, labels and help text. The reference documentation is generated from these
//! rows.

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
    /// A value that only grows.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// Observations, counted in the buckets of [`SECONDS`].
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

/// Upper bounds of the buckets of every histogram, in seconds: from a fast dial to a slow failover. They are close
/// together around Patroni's ttl (30 s by default), because the failover of a dead leader takes a few seconds more than
/// the ttl.
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

/// Declares each row as a constant, and all rows as one list in the same order.
macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, [$($label:literal),*], $help:literal);)+) => {
        $(pub(super) const $constant: Family = $kind($name, &[$($label),*], $help);)+
        /// All metrics, in the order of the reference documentation.
        pub const FAMILIES: &[Family] = &[$($constant),+];
    };
}

families! {
    ACCEPTED = counter("pgnorth_accepted_total", [], "Client connections accepted.");
    PENDING_CLIENTS = gauge("pgnorth_pending_clients", [], "Connected clients that have not yet sent a complete first packet; they do not count as sessions.");
    ACCEPT_ERRORS = counter("pgnorth_accept_errors_total", [], "Calls of accept(2) that failed for lack of file descriptors or memory.");
    SESSIONS = gauge("pgnorth_sessions", ["state"], "Open sessions by state: held, dialling, forwarding.");
    SESSIONS_MAX = gauge("pgnorth_sessions_max", [], "Current limit of open sessions.");
    LOCAL_PORTS = gauge("pgnorth_local_ports", [], "Local ports for connections to one leader: the size of net.ipv4.ip_local_port_range, times the number of --source addresses.");
    POOLER_FAILURES = counter("pgnorth_pooler_failures_total", ["route", "target"], "Dials, logins and sessions that failed because of a member's pooler, by route and target (--target, or the route's own).");
    DIALS_WITHOUT_PORT = counter("pgnorth_dials_without_port_total", [], "Attempts to connect to a member that found no free local port.");
    SESSIONS_ENDED = counter("pgnorth_sessions_ended_total", ["ending"], "Ended sessions by ending.");
    FORWARDED_BYTES = counter("pgnorth_forwarded_bytes_total", ["direction"], "Bytes delivered by direction: client_to_leader, leader_to_client.");
    OLDEST_WAIT_SECONDS = gauge("pgnorth_oldest_wait_seconds", [], "Wait time of the longest-held client; 0 if none is held.");
    HOLD_SECONDS = histogram("pgnorth_hold_seconds", [], "Time from accept until the dial that reached a member, or until the wait ended without one.");
    DIAL_SECONDS = histogram("pgnorth_dial_seconds", ["outcome"], "Time to connect to a member's PostgreSQL or pooler by outcome: ok, failed, timed_out.");
    ROUTING = gauge("pgnorth_routing", [], "1 while new clients are sent to a leader; 0 while they are held.");
    ROUTING_STATE_INFO = gauge("pgnorth_routing_state_info", ["state", "reason"], "1 for the current routing state (route, hold, fence) and its reason; 0 for former ones. During an operator's hold, the reason is the one that would apply without it.");
    HELD_BY_OPERATOR = gauge("pgnorth_held_by_operator", [], "1 while an operator holds new clients through POST /hold.");
    LEADER_INFO = gauge("pgnorth_leader_info", ["member"], "1 for the leader, whose sessions are kept; 0 for former leaders.");
    ROUTE_OPEN = gauge("pgnorth_route_open", ["route", "port"], "1 while new clients of this route go to a member; 0 while they are held.");
    ROUTE_MEMBER_UNFIT = gauge("pgnorth_route_member_unfit", ["route", "port", "member", "reason"], "1 for a member that gets no new clients of this route, and the reason; 0 for former reasons.");
    ROUTE_MEMBER_FIT = gauge("pgnorth_route_member_fit", ["route", "port", "member"], "1 for a member that gets new clients of this route; 0 for others.");
    ROUTE_SESSIONS = gauge("pgnorth_route_sessions", ["route", "port", "member"], "Sessions to a member on this route, including those that are still being connected.");
    PRIMARIES = gauge("pgnorth_primaries", [], "Members that report that they are a running primary: in a recent answer of their REST API or, if they are not asked because the lock is watched, in their status in the DCS. A status written before the lock moved counts only for the lock's holder.");
    FOREIGN_ANSWERS = gauge("pgnorth_foreign_answers", [], "Members and URLs of --patroni whose newest answer came from another cluster; pgnorth ignores such answers.");
    LEADER_CHANGES = counter("pgnorth_leader_changes_total", [], "Changes of the leader that sessions are sent to.");
    FENCES = counter("pgnorth_fences_total", [], "Fences: how often the sessions to the primary were ended because another member may have been promoted.");
    FAILOVER_SECONDS = histogram("pgnorth_failover_seconds", ["phase"], "Duration of changes of leader by phase. total: from the first sign until the new leader was verified to accept writes. lock: from the first sign until the lock named the new leader. promotion: from then until the verification. cut: from the decision, or from the end of --failover-drain, until the last session to the old leader was closed. first_session: from the verification until the first session of a client that had waited.");
    LOCK_AGE_SECONDS = gauge("pgnorth_lock_age_seconds", [], "Time since the leader's lock was last seen renewed; without a lock to watch, since the leader last answered.");
    LOCK_TTL_SECONDS = gauge("pgnorth_lock_ttl_seconds", [], "Patroni's ttl.");
    SOURCE_UP = gauge("pgnorth_source_up", ["source"], "1 while a source of discovery answers: kubernetes (with --scope, unless --etcd or --kubernetes=false is set), etcd (with --etcd), patroni.");
    PROBES = counter("pgnorth_probes_total", ["outcome"], "Requests to members' REST API by outcome: ok, failed, timed_out.");
    PUBLISHES = counter("pgnorth_publishes_total", ["result"], "pgnorth publish: attempts to update the Service by result: written, unchanged, conflict (another publisher wrote first), yielded (another publisher contradicts this one), failed.");
    PUBLISH_SECONDS = histogram("pgnorth_publish_seconds", [], "pgnorth publish: time from a decision until the Service was updated.");
    PUBLISH_BEHIND = gauge("pgnorth_publish_behind", [], "pgnorth publish: 1 while the Service differs from what this publisher has decided.");
    HAPROXY_READABLE = gauge("pgnorth_haproxy_readable", [], "pgnorth watch --haproxy: 1 while HAProxy's statistics can be read and show the primary's backend.");
    HAPROXY_AGREES = gauge("pgnorth_haproxy_agrees", [], "pgnorth watch --haproxy: 1 while the primary is the only member that HAProxy has up.");
    HAPROXY_STALE_SESSIONS = gauge("pgnorth_haproxy_stale_sessions", [], "pgnorth watch --haproxy: sessions through HAProxy to members that do not lead.");
    HAPROXY_SECONDS = histogram("pgnorth_haproxy_seconds", ["what"], "pgnorth watch --haproxy: durations from each report on a change of leader or a disagreement. wrong: HAProxy had a member up that was not the primary. refused: HAProxy had no member up. stale_sessions: sessions were open to a former leader.");
    LOG_LINES_LOST = counter("pgnorth_log_lines_lost_total", [], "Log lines that were lost because standard error was closed, or was not read fast enough.");
    CLUSTER_INFO = gauge("pgnorth_cluster_info", ["scope"], "1 for the scope of the cluster that pgnorth follows (empty until it is known); 0 for former ones.");
    BUILD_INFO = gauge("pgnorth_build_info", ["version", "commit"], "1 for this build.");
    // The name that Prometheus' own client libraries use.
    PROCESS_START = gauge("process_start_time_seconds", [], "Start time of the process, in seconds since 1970-01-01 UTC.");
}
