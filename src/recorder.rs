//! The flight recorder: a record of each change of leader, from its first sign to the first session on the new leader.
//!
//! Discovery and the proxy report events to the recorder, which keeps the last changes, measures their phases and logs
//! them. It makes no decisions.

mod failover;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::info;

use crate::leader::{MemberName, Server};
use crate::metrics::{FailoverPhase, Metrics};

pub use failover::{Failover, HaproxyReport, OngoingChange};

/// Number of changes that are kept.
const KEPT: usize = 100;

/// The flight recorder. Its lock is held only briefly, and never across an await.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    /// True if this process forwards sessions.
    has_sessions: bool,
    records: Mutex<Records>,
    /// True while a change is under way or waits for its first session. While this is false, a session acquires no
    /// lock.
    attentive: AtomicBool,
}

#[derive(Debug, Default)]
struct Records {
    open: Option<OpenRecord>,
    past: VecDeque<Arc<Failover>>,
    /// The number of recorded changes; after a reload, including the records that the replaced process has handed over.
    /// `past` contains the newest changes.
    changes: u64,
    writable_at: Option<Instant>,
}

/// A change that is under way.
#[derive(Debug)]
struct OpenRecord {
    began: Instant,
    wall: SystemTime,
    sign: String,
    /// True if clients are held for this change.
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

    /// Returns a recorder for a process that forwards no sessions: its records have no values for sessions and clients.
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

    /// Replaces the records with those of the replaced process, which come newest first. Records of this process would
    /// only duplicate them, because both processes have observed the same changes.
    pub fn carry_on(&self, failovers: Vec<Failover>) {
        let mut records = self.lock();
        records.past = failovers.into_iter().take(KEPT).rev().map(Arc::new).collect();
        records.changes = records.past.len() as u64;
    }

    /// Returns the number of recorded changes, including those that [`Self::carry_on`] has added.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Adds HAProxy's behaviour to the record of the change with this number. Returns the former and the new leader,
    /// and the summary; `None` if the record is no longer kept.
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

    /// Returns the change of leader that may be under way, if any.
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

    /// Records a sign of trouble with the leader. `holding` is true if clients are held for it. The first sign opens a
    /// record. If more than `patience` passes without clients being held, the next sign that holds clients opens a new
    /// record.
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

    /// Drops the open record, because the same leader continues.
    pub fn all_is_well(&self) {
        let mut records = self.lock();
        records.open = None;
        self.attentive.store(records.writable_at.is_some(), Ordering::Relaxed);
    }

    /// Records that the lock names a member other than the former leader.
    pub fn lock_moved(&self, now: Instant, to: &MemberName) {
        let mut records = self.lock();
        if let Some(open) = &mut records.open
            && open.lock_moved.as_ref().is_none_or(|(_, known)| known != to)
        {
            open.lock_moved = Some((now, to.clone()));
        }
    }

    /// Records that all sessions to the former leader are closed, their number, and the time that closing them took.
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

    /// Records that a new leader was verified, after new clients had no leader for `held`. If `through` is true, the
    /// waiting clients are sent to the new leader, and the record lacks only the first session. Otherwise, an operator
    /// holds the clients, and their further wait does not belong to this change.
    pub fn writable(&self, now: Instant, from: &Server, to: &Server, held: Duration, through: bool) {
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

    /// Records a session of a client that had waited for `waited` when it was sent to `leader`.
    pub fn session(&self, leader: &Server, waited: Duration) {
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
        // This client arrived after the new leader was verified, so the change did not hold it. All held clients have
        // been sent to the new leader, and later sessions need no record.
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
