//! Every metric: its name, help, labels and handle. Nothing else in the house names a metric.
//!
//! Base units; label sets are closed. A member's name and the scope are the only values that come from outside: one of each has a series at a time.

mod labels;
mod maker;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use self::labels::{FailoverPhase, Outcome, Published, SessionState};
use self::maker::Maker;
use crate::ending::Ending;
use crate::leader::Course;
use crate::leader::reason::Reason;

/// The handles. One registry for the process; it is passed in, never global.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions: [IntGauge; 3],
    endings: HashMap<Ending, IntCounter>,
    /// Clients accepted.
    pub accepted: IntCounter,
    /// Clients accepted whose first packet is not whole yet.
    pub pending: IntGauge,
    /// Accepts that failed (out of files, out of memory).
    pub accept_errors: IntCounter,
    /// The cap on sessions in force.
    pub sessions_max: IntGauge,
    /// Bytes from clients to the leader.
    pub bytes_to_leader: IntCounter,
    /// Bytes from the leader to clients.
    pub bytes_to_client: IntCounter,
    /// How long the client has waited that came first; 0 while nobody waits. It is set when somebody asks.
    pub oldest_wait_seconds: Gauge,
    /// Time a client waited for a leader to dial.
    pub hold_seconds: Histogram,
    dial_seconds: [Histogram; 3],
    /// Local ports for connections to one leader.
    pub local_ports: IntGauge,
    /// Dials that found no local port.
    pub dials_without_port: IntCounter,
    /// Changes from one leader to another.
    pub leader_changes: IntCounter,
    /// Times all sessions were ended because the lease may have run out.
    pub fences: IntCounter,
    leader_info: IntGaugeVec,
    /// 1 while new clients are sent to a leader.
    pub routing: IntGauge,
    course_info: IntGaugeVec,
    /// Members that say of themselves that they are a running primary.
    pub primaries: IntGauge,
    /// Members and URLs where another cluster answers.
    pub foreign_answers: IntGauge,
    /// 1 while an operator holds new clients.
    pub held_by_operator: IntGauge,
    lease_age_seconds: Gauge,
    lease_renewed: Mutex<Option<Instant>>,
    /// The lease's length, as the leader object says.
    pub lease_ttl_seconds: Gauge,
    source_up: IntGaugeVec,
    probes: IntCounterVec,
    failover_seconds: [Histogram; 5],
    publishes: IntCounterVec,
    /// Time from a verdict until the Service said so.
    pub publish_seconds: Histogram,
    /// 1 while the Service does not say what this publisher has decided.
    pub publish_behind: IntGauge,
    /// Log lines that were not written, because nobody read stderr.
    pub log_lines_lost: IntCounter,
    cluster_info: IntGaugeVec,
    build_info: GaugeVec,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let sessions = make.gauges("pgnorth_sessions", "Sessions open now, by state.", &["state"]);
        let ended = make.counters(
            "pgnorth_sessions_ended_total",
            "Sessions ended, by ending.",
            &["ending"],
        );
        let bytes = make.counters(
            "pgnorth_forwarded_bytes_total",
            "Bytes forwarded, by direction.",
            &["direction"],
        );
        let dials = make.histograms(
            "pgnorth_dial_seconds",
            "Time to open a connection to the leader's PostgreSQL, by outcome.",
            &["outcome"],
        );
        let failovers = make.histograms(
            "pgnorth_failover_seconds",
            "Time that changes of leader took, by phase.",
            &["phase"],
        );
        // A name that every exporter of Prometheus' own libraries has.
        make.float(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970-01-01 UTC.",
        )
        .set(since_1970(SystemTime::now()));
        let metrics = Self {
            sessions: SessionState::ALL.map(|state| sessions.with_label_values(&[state.as_str()])),
            endings: Ending::ALL
                .into_iter()
                .map(|ending| (ending, ended.with_label_values(&[ending.as_str()])))
                .collect(),
            accepted: make.counter("pgnorth_accepted_total", "Client connections accepted."),
            pending: make.gauge(
                "pgnorth_pending_clients",
                "Clients connected that have not sent a whole first packet yet; they are no sessions.",
            ),
            accept_errors: make.counter(
                "pgnorth_accept_errors_total",
                "Accepts that failed, for want of files or memory.",
            ),
            sessions_max: make.gauge("pgnorth_sessions_max", "The cap on open sessions in force."),
            bytes_to_leader: bytes.with_label_values(&["client_to_leader"]),
            bytes_to_client: bytes.with_label_values(&["leader_to_client"]),
            oldest_wait_seconds: make.float(
                "pgnorth_oldest_wait_seconds",
                "How long the client has waited that came first, of those who wait now.",
            ),
            hold_seconds: make.histogram(
                "pgnorth_hold_seconds",
                "Time that clients waited for a leader before it was dialled or they were given up.",
            ),
            dial_seconds: Outcome::ALL.map(|outcome| dials.with_label_values(&[outcome.as_str()])),
            local_ports: make.gauge(
                "pgnorth_local_ports",
                "Local ports for connections to one leader: net.ipv4.ip_local_port_range, for each address of --source.",
            ),
            dials_without_port: make.counter(
                "pgnorth_dials_without_port_total",
                "Attempts to connect to the leader that found no free local port.",
            ),
            leader_changes: make.counter(
                "pgnorth_leader_changes_total",
                "Times that sessions were sent to another leader than before.",
            ),
            fences: make.counter(
                "pgnorth_fences_total",
                "Times that all sessions were ended because the leader's lease may have run out.",
            ),
            leader_info: make.gauges(
                "pgnorth_leader_info",
                "1 for the member whose sessions may live now.",
                &["member"],
            ),
            routing: make.gauge(
                "pgnorth_routing",
                "1 while new clients are sent to a leader, 0 while they are held.",
            ),
            course_info: make.gauges(
                "pgnorth_course_info",
                "1 for what is done with clients now, and why.",
                &["course", "reason"],
            ),
            primaries: make.gauge(
                "pgnorth_primaries",
                "Members that say of themselves that they are a running primary.",
            ),
            foreign_answers: make.gauge(
                "pgnorth_foreign_answers",
                "Members and URLs of --patroni whose newest answer came from another cluster: it counts for nothing.",
            ),
            held_by_operator: make.gauge(
                "pgnorth_held_by_operator",
                "1 while an operator holds new clients, through POST /hold.",
            ),
            lease_age_seconds: make.float(
                "pgnorth_lease_age_seconds",
                "Time since the leader's lock was last seen renewed; without a lock to watch, since the leader last answered.",
            ),
            lease_renewed: Mutex::new(None),
            lease_ttl_seconds: make.float("pgnorth_lease_ttl_seconds", "The lease's length: Patroni's ttl."),
            source_up: make.gauges(
                "pgnorth_source_up",
                "1 while a source of discovery answers, by source.",
                &["source"],
            ),
            probes: make.counters(
                "pgnorth_probes_total",
                "Requests to members' REST API, by outcome.",
                &["outcome"],
            ),
            failover_seconds: FailoverPhase::ALL.map(|phase| failovers.with_label_values(&[phase.as_str()])),
            publishes: make.counters(
                "pgnorth_publishes_total",
                "Times that a Service was to be brought up to date, by result.",
                &["result"],
            ),
            publish_seconds: make.histogram(
                "pgnorth_publish_seconds",
                "Time from a verdict until the Service said so.",
            ),
            publish_behind: make.gauge(
                "pgnorth_publish_behind",
                "1 while the Service does not say what this publisher has decided.",
            ),
            log_lines_lost: make.counter(
                "pgnorth_log_lines_lost_total",
                "Log lines that were lost, because nobody read standard error.",
            ),
            cluster_info: make.gauges(
                "pgnorth_cluster_info",
                "1; the label tells which cluster is followed: Patroni's scope, empty until it is known.",
                &["scope"],
            ),
            build_info: make.floats(
                "pgnorth_build_info",
                "1; the labels tell which build this is.",
                &["version", "commit"],
            ),
            registry,
        };
        metrics.cluster_is("");
        for outcome in Outcome::ALL {
            metrics.probes.with_label_values(&[outcome.as_str()]);
        }
        for result in Published::ALL {
            metrics.publishes.with_label_values(&[result.as_str()]);
        }
        metrics
    }

    /// The gauge of sessions in one state.
    pub fn sessions(&self, state: SessionState) -> &IntGauge {
        &self.sessions[state as usize]
    }

    /// Counts one ended session.
    pub fn ended(&self, ending: Ending) {
        self.endings[&ending].inc();
    }

    /// How many sessions ended this way.
    pub fn endings(&self, ending: Ending) -> u64 {
        self.endings[&ending].get()
    }

    /// How many sessions were ended because their leader is no longer one.
    pub fn sessions_cut(&self) -> u64 {
        self.endings(Ending::LeaderChanged) + self.endings(Ending::Fenced)
    }

    /// Records one dial.
    pub fn dialled(&self, outcome: Outcome, took: Duration) {
        self.dial_seconds[outcome as usize].observe(took.as_secs_f64());
    }

    /// Counts one request to a member's REST API.
    pub fn probed(&self, outcome: Outcome) {
        self.probes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Notes which member's sessions may live; `None` for none.
    pub fn leader_is(&self, member: Option<&str>) {
        self.leader_info.reset();
        if let Some(member) = member {
            self.leader_info.with_label_values(&[member]).set(1);
        }
    }

    /// Notes what is done with clients, and why.
    pub fn course_is(&self, course: &Course, reason: &Reason) {
        self.course_info.reset();
        let labels = [course.as_str(), reason.as_str()];
        self.course_info.with_label_values(&labels).set(1);
    }

    /// Notes which cluster is followed: Patroni's scope.
    pub fn cluster_is(&self, scope: &str) {
        self.cluster_info.reset();
        self.cluster_info.with_label_values(&[scope]).set(1);
    }

    /// Notes when the leader's lock was last seen renewed; the gauge counts from there at each scrape.
    pub fn lease_renewed(&self, at: Instant) {
        *self.lease_renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Notes whether a source answers.
    pub fn source_is_up(&self, source: &str, up: bool) {
        self.source_up.with_label_values(&[source]).set(up.into());
    }

    /// Records one phase of one change of leader.
    pub fn failover_phase(&self, phase: FailoverPhase, took: Duration) {
        self.failover_seconds[phase as usize].observe(took.as_secs_f64());
    }

    /// Counts what became of bringing a Service up to date.
    pub fn published(&self, result: Published) {
        self.publishes.with_label_values(&[result.as_str()]).inc();
    }

    /// Notes which build this is.
    pub fn build_is(&self, version: &str, commit: &str) {
        self.build_info.with_label_values(&[version, commit]).set(1.0);
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        if let Some(at) = *self.lease_renewed.lock().unwrap_or_else(PoisonError::into_inner) {
            self.lease_age_seconds.set(at.elapsed().as_secs_f64());
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory, of metrics that were registered with valid names, cannot fail");
        String::from_utf8(text).expect("the encoder writes UTF-8")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn since_1970(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_help_and_type() {
        let metrics = Metrics::new();
        metrics.leader_is(Some("pg-0"));
        metrics.source_is_up("kubernetes", true);
        metrics.build_is("0", "unknown");
        metrics.cluster_is("demo");
        metrics.course_is(&Course::Hold(None), &Reason::Starting);
        let text = metrics.render();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            for kind in ["HELP", "TYPE"] {
                assert!(text.contains(&format!("# {kind} {family} ")), "{kind} of {name}");
            }
        }
    }

    #[test]
    fn only_the_current_leader_has_a_series() {
        let metrics = Metrics::new();
        metrics.leader_is(Some("pg-0"));
        metrics.leader_is(Some("pg-1"));
        let text = metrics.render();
        assert!(text.contains("pgnorth_leader_info{member=\"pg-1\"} 1"));
        assert!(!text.contains("pg-0"));
    }

    #[test]
    fn only_the_current_course_and_scope_have_a_series() {
        let metrics = Metrics::new();
        assert!(metrics.render().contains("pgnorth_cluster_info{scope=\"\"} 1"));
        metrics.cluster_is("demo");
        metrics.course_is(&Course::Hold(None), &Reason::Starting);
        metrics.course_is(&Course::Hold(None), &Reason::Released);
        let text = metrics.render();
        let series: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("pgnorth_course_info{") || line.starts_with("pgnorth_cluster_info{"))
            .collect();
        assert_eq!(
            series,
            [
                "pgnorth_cluster_info{scope=\"demo\"} 1",
                "pgnorth_course_info{course=\"hold\",reason=\"released\"} 1"
            ]
        );
    }

    #[test]
    fn the_process_started_just_now() {
        let text = Metrics::new().render();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("process_start_time_seconds "));
        let started: f64 = value.unwrap().parse().unwrap();
        assert!((since_1970(SystemTime::now()) - started).abs() < 3600.0, "{started}");
    }
}
