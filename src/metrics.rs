//! The handles of all metrics. The names of metrics occur only in `metrics/table.rs`.
//!
//! Values are in base units. Label sets are closed: members' names and the scope are the only label values from
//! outside.

mod carried;
mod labels;
mod register;
mod routes;
mod table;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use self::carried::Carried;
pub use self::labels::{FailoverPhase, HaproxyTime, Outcome, PublishResult, SessionState};
pub use self::register::{Count, Level};
use self::register::{ExportedValues, counter, describe_all, gauge, histogram, parse_series, series};
use self::routes::RouteSeries;
use self::table as row;
pub use self::table::{FAMILIES, Family, Kind, SECONDS};
use crate::ending::Ending;
use crate::leader::RoutingState;
use crate::leader::reason::Reason;
use crate::route::{RouteKind, Upstream};

/// The handles of the metrics of one recorder. Nothing is global.
pub struct Metrics {
    recorder: PrometheusRecorder,
    read_back: ExportedValues,
    carried: Carried,
    sessions: [Level; 3],
    endings: HashMap<Ending, Count>,
    /// Accepted clients.
    pub accepted: Count,
    /// Accepted clients whose first packet is incomplete.
    pub pending: Level,
    /// Calls of accept(2) that failed for lack of file descriptors or memory.
    pub accept_errors: Counter,
    /// Current limit of open sessions.
    pub sessions_max: Level,
    /// Local ports for connections to one leader.
    pub local_ports: Level,
    /// Dials that found no free local port.
    pub dials_without_port: Counter,
    /// Bytes from clients to members.
    pub bytes_to_leader: Count,
    /// Bytes from members to clients.
    pub bytes_to_client: Count,
    oldest_wait_seconds: Gauge,
    /// Wait times of clients for a leader.
    pub hold_seconds: Histogram,
    dial_seconds: [Histogram; 3],
    /// Changes from one leader to another.
    pub leader_changes: Counter,
    /// Fences: how often the sessions to the primary were ended because another member may have been promoted.
    pub fences: Counter,
    routing: Gauge,
    primaries: Gauge,
    foreign_answers: Gauge,
    held_by_operator: Gauge,
    lock_age_seconds: Gauge,
    lock_seen: Mutex<Option<Instant>>,
    lock_ttl_seconds: Gauge,
    probes: [Counter; 3],
    failover_seconds: [Histogram; 5],
    publishes: [Counter; 5],
    /// Times from a decision until the Service was updated.
    pub publish_seconds: Histogram,
    publish_behind: Gauge,
    haproxy_readable: Gauge,
    haproxy_agrees: Gauge,
    haproxy_stale_sessions: Gauge,
    haproxy_seconds: [Histogram; 3],
    /// Log lines that were lost because standard error was closed, or was not read fast enough.
    pub log_lines_lost: Count,
    infos: Mutex<Infos>,
}

/// The series of each `_info` metric that is currently 1, and the series of routes.
#[derive(Default)]
struct Infos {
    leader: Option<Gauge>,
    state: Option<Gauge>,
    cluster: Option<Gauge>,
    routes: RouteSeries,
}

impl Metrics {
    /// Returns all metrics at zero.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        describe_all(&recorder);
        let all = &recorder;
        let mut read_back = ExportedValues::default();
        let mut count = |family, values: &[&str]| read_back.count(series(family, values), counter(all, family, values));
        let endings = Ending::ALL.map(|ending| (ending, count(&row::SESSIONS_ENDED, &[ending.as_str()])));
        let accepted = count(&row::ACCEPTED, &[]);
        let log_lines_lost = count(&row::LOG_LINES_LOST, &[]);
        let bytes_to_leader = count(&row::FORWARDED_BYTES, &["client_to_leader"]);
        let bytes_to_client = count(&row::FORWARDED_BYTES, &["leader_to_client"]);
        let mut level = |family, values: &[&str]| read_back.level(gauge(all, family, values));
        let sessions = SessionState::ALL.map(|state| level(&row::SESSIONS, &[state.as_str()]));
        let pending = level(&row::PENDING_CLIENTS, &[]);
        let local_ports = level(&row::LOCAL_PORTS, &[]);
        let sessions_max = level(&row::SESSIONS_MAX, &[]);
        let seconds = |family, label: &str| histogram(all, family, &[label]);
        let of = |family, label: &str| counter(all, family, &[label]);
        let now = |family| gauge(all, family, &[]);
        now(&row::PROCESS_START).set(since_1970(SystemTime::now()));
        let metrics = Self {
            endings: endings.into_iter().collect(),
            accepted,
            log_lines_lost,
            pending,
            bytes_to_leader,
            bytes_to_client,
            sessions,
            sessions_max,
            local_ports,
            dials_without_port: counter(all, &row::DIALS_WITHOUT_PORT, &[]),
            accept_errors: counter(all, &row::ACCEPT_ERRORS, &[]),
            oldest_wait_seconds: now(&row::OLDEST_WAIT_SECONDS),
            hold_seconds: histogram(all, &row::HOLD_SECONDS, &[]),
            dial_seconds: Outcome::ALL.map(|outcome| seconds(&row::DIAL_SECONDS, outcome.as_str())),
            leader_changes: counter(all, &row::LEADER_CHANGES, &[]),
            fences: counter(all, &row::FENCES, &[]),
            routing: now(&row::ROUTING),
            primaries: now(&row::PRIMARIES),
            foreign_answers: now(&row::FOREIGN_ANSWERS),
            held_by_operator: now(&row::HELD_BY_OPERATOR),
            lock_age_seconds: now(&row::LOCK_AGE_SECONDS),
            lock_seen: Mutex::new(None),
            lock_ttl_seconds: now(&row::LOCK_TTL_SECONDS),
            probes: Outcome::ALL.map(|outcome| of(&row::PROBES, outcome.as_str())),
            failover_seconds: FailoverPhase::ALL.map(|phase| seconds(&row::FAILOVER_SECONDS, phase.as_str())),
            publishes: PublishResult::ALL.map(|result| of(&row::PUBLISHES, result.as_str())),
            publish_seconds: histogram(all, &row::PUBLISH_SECONDS, &[]),
            publish_behind: now(&row::PUBLISH_BEHIND),
            haproxy_readable: now(&row::HAPROXY_READABLE),
            haproxy_agrees: now(&row::HAPROXY_AGREES),
            haproxy_stale_sessions: now(&row::HAPROXY_STALE_SESSIONS),
            haproxy_seconds: HaproxyTime::ALL.map(|time| seconds(&row::HAPROXY_SECONDS, time.as_str())),
            infos: Mutex::default(),
            read_back,
            carried: Carried::default(),
            recorder,
        };
        metrics.set_cluster("");
        metrics
    }

    /// Returns the gauge of sessions in one state.
    pub fn sessions(&self, state: SessionState) -> &Level {
        &self.sessions[state as usize]
    }

    /// Counts one ended session.
    pub fn ended(&self, ending: Ending) {
        self.endings[&ending].inc();
    }

    /// Returns the number of sessions that ended this way.
    pub fn endings(&self, ending: Ending) -> u64 {
        self.endings[&ending].get()
    }

    /// Returns the number of sessions that were ended because of a change of leader or a fence.
    pub fn sessions_cut(&self) -> u64 {
        self.endings(Ending::LeaderChanged) + self.endings(Ending::Fenced)
    }

    /// Returns the counter of dials, openings and sessions that failed because of a pooler, on routes of this kind and
    /// target.
    pub fn pooler_failures(&self, route: RouteKind, upstream: Upstream) -> Counter {
        let target = upstream.to_string();
        counter(&self.recorder, &row::POOLER_FAILURES, &[route.as_str(), &target])
    }

    /// Records the time of one dial.
    pub fn dialled(&self, outcome: Outcome, took: Duration) {
        self.dial_seconds[outcome as usize].record(took);
    }

    /// Counts one request to a member's REST API.
    pub fn probed(&self, outcome: Outcome) {
        self.probes[outcome as usize].increment(1);
    }

    /// Sets the gauges of HAProxy from the last reading of its statistics.
    pub fn set_haproxy(&self, readable: bool, agrees: bool, stale_sessions: u64) {
        self.haproxy_readable.set(f64::from(u8::from(readable)));
        self.haproxy_agrees.set(f64::from(u8::from(agrees)));
        self.haproxy_stale_sessions.set(stale_sessions as f64);
    }

    /// Records one of the times in a report about HAProxy.
    pub fn haproxy_time(&self, time: HaproxyTime, took: Duration) {
        self.haproxy_seconds[time as usize].record(took);
    }

    /// Sets the leader whose sessions are kept, if any.
    pub fn set_leader(&self, member: Option<&str>) {
        let series = member.map(|member| gauge(&self.recorder, &row::LEADER_INFO, &[member]));
        switch_to(&mut self.infos().leader, series);
    }

    /// Sets the routing state and its reason.
    pub fn set_routing_state(&self, state: &RoutingState, reason: &Reason) {
        let labels = [state.as_str(), reason.as_str()];
        let series = gauge(&self.recorder, &row::ROUTING_STATE_INFO, &labels);
        switch_to(&mut self.infos().state, Some(series));
    }

    /// Sets the scope of the followed cluster.
    pub fn set_cluster(&self, scope: &str) {
        let series = gauge(&self.recorder, &row::CLUSTER_INFO, &[scope]);
        switch_to(&mut self.infos().cluster, Some(series));
    }

    /// Sets `pgnorth_routing`: 1 if new clients go to a leader.
    pub fn set_routing(&self, routes: bool) {
        self.routing.set(f64::from(u8::from(routes)));
    }

    /// Sets `pgnorth_held_by_operator`: 1 if an operator holds new clients.
    pub fn set_held_by_operator(&self, holds: bool) {
        self.held_by_operator.set(f64::from(u8::from(holds)));
    }

    /// Sets the number of members that report that they are a running primary.
    pub fn set_primaries(&self, count: usize) {
        self.primaries.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// Sets the number of members and URLs where another cluster answers.
    pub fn set_foreign_answers(&self, count: usize) {
        self.foreign_answers
            .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// Sets Patroni's ttl.
    pub fn set_ttl(&self, ttl: Duration) {
        self.lock_ttl_seconds.set(ttl);
    }

    /// Sets the wait time of the longest-held client.
    pub fn set_oldest_wait(&self, wait: Duration) {
        self.oldest_wait_seconds.set(wait);
    }

    /// Sets the time of the last observed renewal of the lock; each scrape computes the age from it.
    pub fn set_lock_age(&self, at: Instant) {
        *self.lock_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Sets `pgnorth_source_up` of a source: 1 if it answers.
    pub fn set_source_up(&self, source: &str, up: bool) {
        gauge(&self.recorder, &row::SOURCE_UP, &[source]).set(f64::from(u8::from(up)));
    }

    /// Records one phase of one change of leader.
    pub fn failover_phase(&self, phase: FailoverPhase, took: Duration) {
        self.failover_seconds[phase as usize].record(took);
    }

    /// Counts one attempt to update the Service.
    pub fn count_publish(&self, result: PublishResult) {
        self.publishes[result as usize].increment(1);
    }

    /// Sets `pgnorth_publish_behind`: 1 if the Service differs from the decision.
    pub fn set_publish_behind(&self, behind: bool) {
        self.publish_behind.set(f64::from(u8::from(behind)));
    }

    /// Sets the version and commit of this build.
    pub fn set_build(&self, version: &str, commit: &str) {
        gauge(&self.recorder, &row::BUILD_INFO, &[version, commit]).set(1.0);
    }

    /// Sorts the histograms' observations into their buckets, as a scrape does. Until then, each observation stays in
    /// memory, so this must be called periodically in case nothing scrapes.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Returns the value of every counter by its series, for a process that replaces this one.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let text = self.render();
        let counter = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            parse_series(series)?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(counter).collect()
    }

    /// Adds the counters of the process that this one replaces. Skips counters that this version does not have.
    pub fn carry_on(&self, counters: &[(String, u64)]) {
        for (series, count) in counters.iter().filter(|(_, count)| *count > 0) {
            if !self.read_back.add(series, *count)
                && let Some((family, values)) = parse_series(series)
            {
                counter(&self.recorder, family, &values).increment(*count);
            }
        }
    }

    /// Returns the values of all histograms by series, for a process that replaces this one.
    pub fn histograms(&self) -> Vec<(String, f64)> {
        carried::histograms(&self.render())
    }

    /// Adds the histograms of the process that this one replaces. Replaces values that were added by an earlier call.
    pub fn carry_histograms(&self, values: Vec<(String, f64)>) {
        self.carried.set(values, &self.render_own());
    }

    /// Returns all metrics in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.carried.add_to(self.render_own())
    }

    /// Returns all metrics without the histograms of a replaced process.
    fn render_own(&self) -> String {
        if let Some(at) = *self.lock_seen.lock().unwrap_or_else(PoisonError::into_inner) {
            self.lock_age_seconds.set(at.elapsed());
        }
        self.read_back.export();
        self.recorder.handle().render()
    }

    fn infos(&self) -> std::sync::MutexGuard<'_, Infos> {
        self.infos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Sets the former series to 0 and the new series to 1. A series that vanished would look like a target that is down.
fn switch_to(series: &mut Option<Gauge>, to: Option<Gauge>) {
    if let Some(former) = series.take() {
        former.set(0.0);
    }
    if let Some(new) = &to {
        new.set(1.0);
    }
    *series = to;
}

fn since_1970(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
