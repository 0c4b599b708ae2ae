//! The flight recorder: a record of each change of leader, from its first sign to the first session on the new leader.
//!
//! Discovery and the proxy report events to it. It keeps the last changes, measures their phases and logs them. It
//! makes no decisions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::leader::{Leader, MemberName};
use crate::metrics::{FailoverPhase, Metrics};

/// Number of changes that are kept.
const KEPT: usize = 100;

/// A change of leader. Times are in seconds. Field names are an interface that scripts read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// The member that led before.
    pub from: MemberName,
    /// The member that leads since.
    pub to: MemberName,
    /// The new leader's timeline.
    pub timeline: Option<u32>,
    /// Time of the first sign, RFC 3339.
    pub began: Option<String>,
    /// The first sign of the change.
    pub first_sign: String,
    /// From the first sign until the lock named the new leader; none if no lock is watched.
    pub lock_moved_after_seconds: Option<f64>,
    /// From the first sign until the new leader was verified to accept writes, and got the waiting clients.
    pub writable_after_seconds: f64,
    /// Time for which new clients had no leader until then: held by the proxy, `held_ms` of the log.
    #[serde(default)]
    pub held_seconds: f64,
    /// From the verification to the first session of a client that waited for it; none until there is one, or if
    /// no client waited.
    pub first_session_after_seconds: Option<f64>,
    /// Sessions to the former leader that pgnorth ended; none if this process forwards no sessions, as `pgnorth watch`.
    pub sessions_cut: Option<u64>,
    /// From the decision until the last of them was closed; none while some are open, or if there was none.
    pub sessions_cut_in_seconds: Option<f64>,
    /// Clients that waited for the new leader; none if this process forwards no sessions.
    pub clients_held: Option<u64>,
    /// The longest of their waits; none if this process forwards no sessions.
    pub longest_hold_seconds: Option<f64>,
    /// HAProxy in this change, with `pgnorth watch --haproxy`; none until it agrees again, for a minute at most.
    #[serde(default)]
    pub haproxy: Option<HaproxyReport>,
}

/// HAProxy in a change of leader, compared with pgnorth. Times are in seconds; field names are an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HaproxyReport {
    /// The report as one sentence.
    pub summary: String,
    /// Time in which HAProxy had a member up that was not the primary.
    pub wrong_seconds: f64,
    /// Time in which it had no member up, and refused clients.
    pub refused_seconds: f64,
    /// Time in which its statistics could not be read.
    pub unseen_seconds: f64,
    /// The most sessions that were open at one time to members that had ceased to lead.
    pub stale_sessions: u64,
    /// Time in which there was at least one of them.
    pub stale_sessions_seconds: f64,
    /// True if HAProxy agreed with pgnorth at the end of the report.
    pub settled: bool,
}

/// A change of leader that may be under way. Times are in seconds; field names are an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OngoingChange {
    /// Time since the first sign.
    pub for_seconds: f64,
    /// The first sign of the change.
    pub first_sign: String,
    /// True if clients are held for it.
    pub holding: bool,
    /// The member that the lock names now, if it has moved.
    pub lock_moved_to: Option<MemberName>,
    /// From the first sign until the lock moved.
    pub lock_moved_after_seconds: Option<f64>,
    /// Sessions that pgnorth ended for it so far.
    pub sessions_cut: u64,
}

/// The recorder. Its lock is held for moments, never across an await.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    /// Sessions are reported too.
    has_sessions: bool,
    records: Mutex<Records>,
    /// A change is under way, or waits for its first session. While this is false, a session takes no lock.
    attentive: AtomicBool,
}

#[derive(Debug, Default)]
struct Records {
    open: Option<OpenRecord>,
    past: VecDeque<Arc<Failover>>,
    /// The number of changes since the start; `past` has the last of them.
    changes: u64,
    writable_at: Option<Instant>,
}

/// A change under way.
#[derive(Debug)]
struct OpenRecord {
    began: Instant,
    wall: SystemTime,
    sign: String,
    /// Clients are held for it.
    holding: bool,
    lock_moved: Option<(Instant, MemberName)>,
    cut: (u64, Option<Duration>),
}

impl Recorder {
    /// Returns a recorder without records.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            has_sessions: true,
            records: Mutex::default(),
            attentive: AtomicBool::new(false),
        }
    }

    /// Returns a recorder for a process that forwards no sessions: its records say nothing about sessions and clients.
    pub fn without_sessions(metrics: Arc<Metrics>) -> Self {
        Self {
            has_sessions: false,
            ..Self::new(metrics)
        }
    }

    /// Returns the changes that are kept, the newest first.
    pub fn failovers(&self) -> Vec<Failover> {
        // The copies are made without the lock, so that discovery does not wait for a reader.
        let past: Vec<_> = self.lock().past.iter().rev().cloned().collect();
        past.iter().map(|change| Failover::clone(change)).collect()
    }

    /// Returns the number of changes since the start.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Adds what HAProxy did to the record of the change with this number. Returns the members and the summary, unless
    /// the record is not kept any more.
    pub fn add_report(
        &self,
        change: u64,
        report: impl FnOnce(&Failover) -> HaproxyReport,
    ) -> Option<(MemberName, MemberName, String)> {
        let mut records = self.lock();
        let later = usize::try_from(records.changes.checked_sub(change)?).ok()?;
        let place = records.past.len().checked_sub(later + 1)?;
        let record = records.past.get_mut(place).map(Arc::make_mut)?;
        let report = record.haproxy.insert(report(record));
        let summary = report.summary.clone();
        Some((record.from.clone(), record.to.clone(), summary))
    }

    /// Returns the change of leader that may be under way, if there is one.
    pub fn trouble(&self, now: Instant) -> Option<OngoingChange> {
        let records = self.lock();
        let open = records.open.as_ref()?;
        let moved = open.lock_moved.as_ref();
        Some(OngoingChange {
            for_seconds: now.saturating_duration_since(open.began).as_secs_f64(),
            first_sign: open.sign.clone(),
            holding: open.holding,
            lock_moved_to: moved.map(|(_, member)| member.clone()),
            lock_moved_after_seconds: moved.map(|(at, _)| at.saturating_duration_since(open.began).as_secs_f64()),
            sessions_cut: open.cut.0,
        })
    }

    /// Records a sign of trouble with the leader; `holding` is true if clients are held for it. The first sign after
    /// a time without trouble begins a record. If no client was held within `patience` of that sign, the next sign
    /// that holds clients is another trouble, and begins a new record.
    pub fn sign(&self, now: Instant, what: &str, holding: bool, patience: Duration) {
        let mut records = self.lock();
        let another_trouble =
            |open: &OpenRecord| holding && !open.holding && patience < now.saturating_duration_since(open.began);
        if records.open.as_ref().is_none_or(another_trouble) {
            records.open = Some(OpenRecord {
                began: now,
                wall: SystemTime::now(),
                sign: what.to_owned(),
                holding,
                lock_moved: None,
                cut: (0, None),
            });
            self.attentive.store(true, Ordering::Relaxed);
        }
        if let Some(open) = &mut records.open {
            open.holding |= holding;
        }
    }

    /// Drops the record that is under way: the same leader continues.
    pub fn all_is_well(&self) {
        let mut records = self.lock();
        records.open = None;
        self.attentive.store(records.writable_at.is_some(), Ordering::Relaxed);
    }

    /// Records that the lock names another member than the former leader.
    pub fn lock_moved(&self, now: Instant, to: &MemberName) {
        let mut records = self.lock();
        if let Some(open) = &mut records.open
            && open.lock_moved.as_ref().is_none_or(|(_, known)| known != to)
        {
            open.lock_moved = Some((now, to.clone()));
        }
    }

    /// Records that all sessions to the former leader are closed, with their number and the time that it took.
    pub fn sessions_cut(&self, sessions: u64, took: Duration) {
        if sessions == 0 {
            return;
        }
        self.metrics.failover_phase(FailoverPhase::Cut, took);
        info!(
            sessions,
            took_ms = millis(took),
            "every session to the former leader is closed"
        );
        let mut records = self.lock();
        match &mut records.open {
            Some(open) => open.cut = (open.cut.0 + sessions, Some(took)),
            None => {
                if let Some(last) = records.past.back_mut().map(Arc::make_mut) {
                    last.sessions_cut = Some(last.sessions_cut.unwrap_or_default() + sessions);
                    last.sessions_cut_in_seconds = Some(took.as_secs_f64());
                }
            }
        }
    }

    /// Records that another leader was verified, after new clients had none for `held`. If `through` is true, the waiting clients are sent to it, and the
    /// record lacks only its first session. Otherwise an operator holds them, and their further wait does not belong
    /// to this change.
    pub fn writable(&self, now: Instant, from: &Leader, to: &Leader, held: Duration, through: bool) {
        let mut records = self.lock();
        let Some(open) = records.open.take() else { return };
        let took = now.saturating_duration_since(open.began);
        let moved = open.lock_moved.as_ref().filter(|(_, member)| *member == to.member);
        let lock_moved = moved.map(|(at, _)| at.saturating_duration_since(open.began));
        self.metrics.failover_phase(FailoverPhase::Total, took);
        if let Some(lock_moved) = lock_moved {
            self.metrics.failover_phase(FailoverPhase::Lock, lock_moved);
            self.metrics
                .failover_phase(FailoverPhase::Promotion, took.saturating_sub(lock_moved));
        }
        if records.past.len() == KEPT {
            records.past.pop_front();
        }
        records.past.push_back(Arc::new(Failover {
            from: from.member.clone(),
            to: to.member.clone(),
            timeline: to.timeline,
            began: jiff::Timestamp::try_from(open.wall).ok().map(|at| format!("{at:.3}")),
            first_sign: open.sign,
            lock_moved_after_seconds: lock_moved.map(|after| after.as_secs_f64()),
            writable_after_seconds: took.as_secs_f64(),
            held_seconds: held.as_secs_f64(),
            first_session_after_seconds: None,
            sessions_cut: self.has_sessions.then_some(open.cut.0),
            sessions_cut_in_seconds: open.cut.1.map(|took| took.as_secs_f64()),
            clients_held: self.has_sessions.then_some(0),
            longest_hold_seconds: self.has_sessions.then_some(0.0),
            haproxy: None,
        }));
        records.changes += 1;
        records.writable_at = through.then_some(now);
    }

    /// Records that a client was sent to `leader` after it had waited.
    pub fn session(&self, leader: &Leader, waited: Duration) {
        if !self.attentive.load(Ordering::Relaxed) {
            return;
        }
        let mut records = self.lock();
        let Some(writable_at) = records.writable_at else { return };
        let since_writable = writable_at.elapsed();
        let last = records.past.back_mut().filter(|last| last.to == leader.member);
        let Some(last) = last.map(Arc::make_mut) else {
            return;
        };
        // This client arrived after the new leader was verified, so this change did not hold it: all clients that
        // were held have been sent, and later sessions need no record.
        if waited <= since_writable {
            records.writable_at = None;
            self.attentive.store(records.open.is_some(), Ordering::Relaxed);
            return;
        }
        if last.first_session_after_seconds.is_none() {
            last.first_session_after_seconds = Some(since_writable.as_secs_f64());
            self.metrics.failover_phase(FailoverPhase::FirstSession, since_writable);
            info!(leader = %leader, after_ms = millis(since_writable), "first session on the new leader");
        }
        last.clients_held = Some(last.clients_held.unwrap_or_default() + 1);
        let longest = last.longest_hold_seconds.unwrap_or_default();
        last.longest_hold_seconds = Some(longest.max(waited.as_secs_f64()));
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // No decision depends on a record, so an incomplete one after a panic does no harm.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Address;

    const TTL: Duration = Duration::from_secs(20);

    fn leader(member: &str) -> Leader {
        Leader {
            member: member.into(),
            address: Address::new("10.0.0.7", 5432).unwrap(),
            timeline: Some(2),
        }
    }

    #[test]
    fn a_change_is_one_record_with_its_phases() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        recorder.sign(at(0), "a stops", false, TTL);
        recorder.sign(at(100), "the lock was released", true, TTL);
        recorder.lock_moved(at(2_000), &"b".into());
        recorder.sessions_cut(7, Duration::from_millis(3));
        let trouble = recorder.trouble(at(2_050)).unwrap();
        assert_eq!(
            (trouble.for_seconds, trouble.lock_moved_after_seconds),
            (2.05, Some(2.0))
        );
        assert_eq!((trouble.sessions_cut, trouble.holding), (7, true));
        recorder.writable(at(2_100), &leader("a"), &leader("b"), Duration::ZERO, true);
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        recorder.session(&leader("b"), Duration::ZERO);
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        let [record] = &recorder.failovers()[..] else {
            panic!("one record")
        };
        assert_eq!(record.first_sign, "a stops");
        assert_eq!(record.lock_moved_after_seconds, Some(2.0));
        assert_eq!(record.writable_after_seconds, 2.1);
        assert_eq!(
            (record.sessions_cut, record.sessions_cut_in_seconds),
            (Some(7), Some(0.003))
        );
        assert_eq!(
            (record.clients_held, record.longest_hold_seconds),
            (Some(1), Some(3_600.0))
        );
        assert!(record.first_session_after_seconds.is_some());
        assert!(recorder.trouble(now).is_none(), "it is over");
    }

    #[test]
    fn a_client_that_an_operator_holds_is_not_counted_as_held_by_the_change() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "the lock moved", true, TTL);
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, false);
        recorder.all_is_well();
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        let failover = &recorder.failovers()[0];
        assert_eq!((failover.from.as_str(), failover.to.as_str()), ("a", "b"));
        assert_eq!(
            (failover.first_session_after_seconds, failover.clients_held),
            (None, Some(0))
        );
    }

    #[test]
    fn a_later_session_is_not_the_first_session_of_a_change_that_held_no_client() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "the lock moved", true, TTL);
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
        recorder.session(&leader("b"), Duration::ZERO);
        let failover = &recorder.failovers()[0];
        assert_eq!(
            (failover.first_session_after_seconds, failover.clients_held),
            (None, Some(0))
        );
    }

    #[test]
    fn a_short_fault_of_the_same_leader_leaves_no_record() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "a does not answer", false, TTL);
        recorder.all_is_well();
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
        assert!(recorder.failovers().is_empty());
    }

    #[test]
    fn an_earlier_fault_that_held_no_client_is_not_the_first_sign() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        let now = Instant::now();
        recorder.sign(now, "its REST API is unreachable", false, TTL);
        recorder.sign(now + 100 * TTL, "a stops", true, TTL);
        recorder.writable(now + 101 * TTL, &leader("a"), &leader("b"), Duration::ZERO, true);
        let record = &recorder.failovers()[0];
        assert_eq!(
            (record.first_sign.as_str(), record.writable_after_seconds),
            ("a stops", 20.0)
        );
    }

    #[test]
    fn the_oldest_records_go() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        for n in 0..=KEPT {
            recorder.sign(Instant::now(), &n.to_string(), true, TTL);
            recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
        }
        let kept = recorder.failovers();
        assert_eq!((kept.len(), kept[0].first_sign.as_str()), (KEPT, "100"));
    }
}
