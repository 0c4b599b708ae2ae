//! Compares HAProxy with pgnorth, for `pgnorth watch --haproxy`: polls HAProxy's statistics, and reports each change of
//! leader and each disagreement.
//!
//! Discovery does not use HAProxy's state as evidence about the cluster.

pub mod compare;
pub mod import;
mod read;
pub mod sample;
pub mod statistics;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use self::compare::{Agreement, Comparison, Reading, Report, agreement, stale_sessions};
use self::read::{ReadError, Source};
use self::sample::{Sample, UnknownBackend, sample};
use self::statistics::{BadStatistics, parse};
use crate::config;
use crate::discovery::http::tls::TlsError;
use crate::leader::view::View;
use crate::leader::{MemberName, RoutingState};
use crate::log_limiter::CurrentProblems;
use crate::metrics::{HaproxyTime, Metrics};
use crate::recorder::{HaproxyReport, Recorder};
use crate::slot::RouteSlot;

/// Pauses between two readings: normally, and during a change of leader or a disagreement.
const PACES: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(250)];

/// The comparison as a task.
pub struct Comparer {
    source: Source,
    backend: Option<String>,
    hold: Duration,
    slot: Arc<RouteSlot>,
    view: watch::Receiver<Arc<View>>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
}

/// The reason why a reading cannot be used.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Statistics(#[from] BadStatistics),
    #[error(transparent)]
    Backend(#[from] UnknownBackend),
}

impl Comparer {
    /// Returns the comparison with the HAProxy in the settings. `hold` is the proxy's --hold.
    ///
    /// # Errors
    /// Returns the error of the system's CA certificates.
    pub fn new(
        settings: &config::Haproxy,
        hold: Duration,
        slot: Arc<RouteSlot>,
        view: watch::Receiver<Arc<View>>,
        recorder: Arc<Recorder>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            source: Source::new(&settings.statistics)?,
            backend: settings.backend.clone(),
            hold,
            slot,
            view,
            recorder,
            metrics,
        })
    }

    /// Compares forever. Begins once pgnorth has found a leader.
    pub async fn run(self) {
        let (mut comparison, mut problems) = (Comparison::default(), CurrentProblems::default());
        let mut has_begun = false;
        loop {
            let read = self.source.read().await;
            has_begun |= self.slot.snapshot().state().leader().is_some();
            if has_begun {
                let view = self.view.borrow().clone();
                let sample = read.map_err(Fault::from).and_then(|text| self.sample(&text, &view));
                log_fault(sample.as_ref().err(), &mut problems);
                self.compare(&mut comparison, sample.ok().as_ref(), &view);
            }
            tokio::time::sleep(PACES[usize::from(comparison.is_open())]).await;
        }
    }

    fn sample(&self, text: &str, view: &View) -> Result<Sample, Fault> {
        let members = view.members().map(|member| (member.clone(), view.address(member).ok()));
        let members: Vec<_> = members.collect();
        Ok(sample(&parse(text)?, self.backend.as_deref(), &members)?)
    }

    fn compare(&self, comparison: &mut Comparison, sample: Option<&Sample>, view: &View) {
        let now = Instant::now();
        let state = self.slot.snapshot().state();
        let reading = Reading {
            at: now,
            haproxy: sample,
            primary: primary(&state, view),
            leader: state.leader().map(|leader| &leader.member),
            trouble: self.recorder.trouble(now).is_some(),
            changes: self.recorder.changes(),
        };
        let agrees = agreement(&reading) == Agreement::Agrees;
        self.metrics
            .set_haproxy(sample.is_some(), agrees, stale_sessions(&reading));
        if let Some(report) = comparison.add(&reading) {
            self.report(&report);
        }
    }

    /// Logs a report, and adds it to the record of its change of leader.
    fn report(&self, report: &Report) {
        for (time, took) in [
            (HaproxyTime::Wrong, report.wrong),
            (HaproxyTime::Refused, report.refused),
            (HaproxyTime::StaleSessions, report.stale),
        ] {
            self.metrics.haproxy_time(time, took);
        }
        let record = report.change.and_then(|change| {
            self.recorder.add_report(change, |record| HaproxyReport {
                wrong_seconds: report.wrong.as_secs_f64(),
                refused_seconds: report.refused.as_secs_f64(),
                unseen_seconds: report.unseen.as_secs_f64(),
                stale_sessions: report.stale_sessions,
                stale_sessions_seconds: report.stale.as_secs_f64(),
                settled: report.settled,
                summary: self.summary(report, Some([record.held_seconds, record.writable_after_seconds])),
            })
        });
        match record {
            Some((from, to, summary)) => info!(%from, %to, "change of leader, compared with HAProxy: {summary}"),
            None => info!("{}", self.summary(report, None)),
        }
    }

    /// Describes a report in one sentence. `held` is the minimum and the maximum time for which a proxy would have held
    /// clients. A proxy also holds while its connections to the leader fail; `pgnorth watch` makes none.
    fn summary(&self, report: &Report, held: Option<[f64; 2]>) -> String {
        let mut text = match (report.wrong.is_zero(), report.refused.is_zero()) {
            (true, true) => "HAProxy was never seen with a wrong server up".to_owned(),
            (false, true) => format!("HAProxy had a wrong server up for {}", Seconds(report.wrong)),
            (true, false) => format!("HAProxy refused clients for {}", Seconds(report.refused)),
            (false, false) => format!(
                "HAProxy had a wrong server up for {} and refused clients for {}",
                Seconds(report.wrong),
                Seconds(report.refused)
            ),
        };
        let mut add = |part: fmt::Arguments<'_>| {
            let _infallible = write!(text, "; {part}");
        };
        match report.stale_sessions {
            0 => {}
            1 => add(format_args!(
                "1 session stayed on a former primary for {}",
                Seconds(report.stale)
            )),
            all => add(format_args!(
                "{all} sessions stayed on a former primary for {}",
                Seconds(report.stale)
            )),
        }
        if !report.unseen.is_zero() {
            add(format_args!(
                "its statistics could not be used for {}",
                Seconds(report.unseen)
            ));
        }
        if !report.settled {
            add(format_args!("HAProxy still disagrees with pgnorth"));
        }
        match held {
            Some([least, most]) => {
                let refused = match most < self.hold.as_secs_f64() {
                    true => "nobody",
                    false => "clients that wait longer than --hold",
                };
                add(format_args!(
                    "pgnorth would have held for {least:.1} to {most:.1} s and refused {refused}"
                ));
            }
            None if report.held.is_zero() => add(format_args!("pgnorth's leader stayed")),
            None => add(format_args!(
                "pgnorth would have held for {}, and its leader stayed",
                Seconds(report.held)
            )),
        }
        text
    }
}

/// Returns the member that accepts writes as far as pgnorth knows: the one that new clients go to or, in an announced
/// switchover, the old leader until it stops.
fn primary<'a>(state: &'a RoutingState, view: &View) -> Option<&'a MemberName> {
    let writable = |member: &MemberName| {
        let last = view.answers(member).and_then(|answers| answers.last.as_ref());
        last.is_some_and(|report| report.value.is_writable())
    };
    let open = state.open_to().map(|leader| &leader.member);
    let kept = || state.leader().map(|leader| &leader.member);
    open.or_else(|| kept().filter(|member| view.announcement().is_some() && writable(member)))
}

/// Logs a fault when it begins, changes or ends.
fn log_fault(fault: Option<&Fault>, problems: &mut CurrentProblems) {
    const HAPROXY: &str = "HAProxy";
    match fault.map(ToString::to_string) {
        Some(fault) if problems.is_new(HAPROXY, &fault) => {
            warn!("cannot compare with HAProxy (--haproxy); retrying: {fault}");
        }
        Some(_) => {}
        None if problems.solved(HAPROXY) => info!("HAProxy's statistics can be used again"),
        None => {}
    }
}

/// A duration in seconds with one decimal.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} s", self.0.as_secs_f64())
    }
}
