//! The flight recorder: what each change of leader looked like, from its first sign to the first session on the new
//! leader.
//!
//! Discovery and the proxy tell it what happens; it keeps the last changes, counts their phases and logs them. It
//! decides nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::leader::{Leader, MemberName};
use crate::metrics::{FailoverPhase, Metrics};

/// How many changes are kept.
const KEPT: usize = 100;

/// One change of leader. Times are in seconds; field names are an interface, as people's scripts read them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// The member that led before.
    pub from: MemberName,
    /// The member that leads since.
    pub to: MemberName,
    /// The new leader's timeline.
    pub timeline: Option<u32>,
    /// When the first sign was seen, RFC 3339.
    pub began: Option<String>,
    /// What was seen first.
    pub first_sign: String,
    /// From the first sign until the lock named the new leader; none where there is no lock to watch.
    pub lock_moved_after_seconds: Option<f64>,
    /// From the first sign until the new leader was verified to accept writes, and got the waiting clients.
    pub writable_after_seconds: f64,
    /// From the verification to the first session of a client that waited for it; none until there is one, or where
    /// nobody waited.
    pub first_session_after_seconds: Option<f64>,
    /// Sessions to the former leader that pgnorth ended.
    pub sessions_cut: u64,
    /// From the decision until the last of them was closed; none while some are open, or where there was none.
    pub sessions_cut_in_seconds: Option<f64>,
    /// Clients that waited for the new leader.
    pub clients_held: u64,
    /// The longest of their waits.
    pub longest_hold_seconds: f64,
}

/// A change of leader that may be under way. Times are in seconds; field names are an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// Since the first sign.
    pub for_seconds: f64,
    /// What was seen first.
    pub first_sign: String,
    /// Clients are held for it.
    pub holding: bool,
    /// The member that the lock names since.
    pub lock_moved_to: Option<MemberName>,
    /// From the first sign until it did.
    pub lock_moved_after_seconds: Option<f64>,
    /// Sessions that pgnorth ended for it so far.
    pub sessions_cut: u64,
}

/// The recorder. Its lock is held for moments, never across an await.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    book: Mutex<Book>,
    /// A change is under way, or waits for its first session: lets sessions of a quiet day pass by the lock.
    attentive: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    open: Option<Open>,
    past: VecDeque<Arc<Failover>>,
    writable_at: Option<Instant>,
}

/// A change under way.
#[derive(Debug)]
struct Open {
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
            book: Mutex::default(),
            attentive: AtomicBool::new(false),
        }
    }

    /// Returns the changes that are kept, the newest first.
    pub fn failovers(&self) -> Vec<Failover> {
        // Discovery must not wait for a reader that copies a hundred of them.
        let past: Vec<_> = self.lock().past.iter().rev().cloned().collect();
        past.iter().map(|change| Failover::clone(change)).collect()
    }

    /// Returns the change of leader that may be under way, if there is one.
    pub fn trouble(&self, now: Instant) -> Option<Trouble> {
        let book = self.lock();
        let open = book.open.as_ref()?;
        let moved = open.lock_moved.as_ref();
        Some(Trouble {
            for_seconds: now.saturating_duration_since(open.began).as_secs_f64(),
            first_sign: open.sign.clone(),
            holding: open.holding,
            lock_moved_to: moved.map(|(_, member)| member.clone()),
            lock_moved_after_seconds: moved.map(|(at, _)| at.saturating_duration_since(open.began).as_secs_f64()),
            sessions_cut: open.cut.0,
        })
    }

    /// Notes a fault of the leader; `holding` tells whether clients are held for it. The first sign since all
    /// was well begins a record. Signs that held nobody for `patience` are a trouble of their own: what holds clients
    /// after that begins anew.
    pub fn sign(&self, now: Instant, what: &str, holding: bool, patience: Duration) {
        let mut book = self.lock();
        let another_trouble =
            |open: &Open| holding && !open.holding && patience < now.saturating_duration_since(open.began);
        if book.open.as_ref().is_none_or(another_trouble) {
            book.open = Some(Open {
                began: now,
                wall: SystemTime::now(),
                sign: what.to_owned(),
                holding,
                lock_moved: None,
                cut: (0, None),
            });
            self.attentive.store(true, Ordering::Relaxed);
        }
        if let Some(open) = &mut book.open {
            open.holding |= holding;
        }
    }

    /// Notes that the same leader continues: there is nothing to keep.
    pub fn all_is_well(&self) {
        let mut book = self.lock();
        book.open = None;
        self.attentive.store(book.writable_at.is_some(), Ordering::Relaxed);
    }

    /// The lock names another member than the one that led.
    pub fn lock_moved(&self, now: Instant, to: &MemberName) {
        let mut book = self.lock();
        if let Some(open) = &mut book.open
            && open.lock_moved.as_ref().is_none_or(|(_, known)| known != to)
        {
            open.lock_moved = Some((now, to.clone()));
        }
    }

    /// Sessions to the former leader are all closed: how many were ended, and how long that took.
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
        let mut book = self.lock();
        match &mut book.open {
            Some(open) => open.cut = (open.cut.0 + sessions, Some(took)),
            None => {
                if let Some(last) = book.past.back_mut().map(Arc::make_mut) {
                    last.sessions_cut += sessions;
                    last.sessions_cut_in_seconds = Some(took.as_secs_f64());
                }
            }
        }
    }

    /// Another leader was verified, and gets the waiting clients if they may go `through`: the record is complete but
    /// for its first session. Else an operator holds them, and what they wait from now on is not this change's.
    pub fn writable(&self, now: Instant, from: &Leader, to: &Leader, through: bool) {
        let mut book = self.lock();
        let Some(open) = book.open.take() else { return };
        let took = now.saturating_duration_since(open.began);
        let moved = open.lock_moved.as_ref().filter(|(_, member)| *member == to.member);
        let lock_moved = moved.map(|(at, _)| at.saturating_duration_since(open.began));
        self.metrics.failover_phase(FailoverPhase::Total, took);
        if let Some(lock_moved) = lock_moved {
            self.metrics.failover_phase(FailoverPhase::Lock, lock_moved);
            self.metrics
                .failover_phase(FailoverPhase::Promotion, took.saturating_sub(lock_moved));
        }
        if book.past.len() == KEPT {
            book.past.pop_front();
        }
        book.past.push_back(Arc::new(Failover {
            from: from.member.clone(),
            to: to.member.clone(),
            timeline: to.timeline,
            began: jiff::Timestamp::try_from(open.wall).ok().map(|at| format!("{at:.3}")),
            first_sign: open.sign,
            lock_moved_after_seconds: lock_moved.map(|after| after.as_secs_f64()),
            writable_after_seconds: took.as_secs_f64(),
            first_session_after_seconds: None,
            sessions_cut: open.cut.0,
            sessions_cut_in_seconds: open.cut.1.map(|took| took.as_secs_f64()),
            clients_held: 0,
            longest_hold_seconds: 0.0,
        }));
        book.writable_at = through.then_some(now);
    }

    /// A client was sent to `leader`, after it had waited.
    pub fn session(&self, leader: &Leader, waited: Duration) {
        if !self.attentive.load(Ordering::Relaxed) {
            return;
        }
        let mut book = self.lock();
        let Some(writable_at) = book.writable_at else { return };
        let since_writable = writable_at.elapsed();
        let last = book.past.back_mut().filter(|last| last.to == leader.member);
        let Some(last) = last.map(Arc::make_mut) else {
            return;
        };
        // A client that came later than the new leader was not held by this change: the queue is through, and later
        // sessions pass by.
        if waited <= since_writable {
            book.writable_at = None;
            self.attentive.store(book.open.is_some(), Ordering::Relaxed);
            return;
        }
        if last.first_session_after_seconds.is_none() {
            last.first_session_after_seconds = Some(since_writable.as_secs_f64());
            self.metrics.failover_phase(FailoverPhase::FirstSession, since_writable);
            info!(leader = %leader, after_ms = millis(since_writable), "first session on the new leader");
        }
        last.clients_held += 1;
        last.longest_hold_seconds = last.longest_hold_seconds.max(waited.as_secs_f64());
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A record is only told of, never acted upon: a half-written one does no harm.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
        recorder.writable(at(2_100), &leader("a"), &leader("b"), true);
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        recorder.session(&leader("b"), Duration::ZERO);
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        let [record] = &recorder.failovers()[..] else {
            panic!("one record")
        };
        assert_eq!(record.first_sign, "a stops");
        assert_eq!(record.lock_moved_after_seconds, Some(2.0));
        assert_eq!(record.writable_after_seconds, 2.1);
        assert_eq!((record.sessions_cut, record.sessions_cut_in_seconds), (7, Some(0.003)));
        assert_eq!((record.clients_held, record.longest_hold_seconds), (1, 3_600.0));
        assert!(record.first_session_after_seconds.is_some());
        assert!(recorder.trouble(now).is_none(), "it is over");
    }

    #[test]
    fn who_waits_for_an_operator_is_not_counted_as_held_by_the_change() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "the lock moved", true, TTL);
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), false);
        recorder.all_is_well();
        recorder.session(&leader("b"), Duration::from_secs(3_600));
        let failover = &recorder.failovers()[0];
        assert_eq!((failover.from.as_str(), failover.to.as_str()), ("a", "b"));
        assert_eq!((failover.first_session_after_seconds, failover.clients_held), (None, 0));
    }

    #[test]
    fn a_session_long_after_a_change_that_held_nobody_is_not_its_first_session() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "the lock moved", true, TTL);
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), true);
        recorder.session(&leader("b"), Duration::ZERO);
        let failover = &recorder.failovers()[0];
        assert_eq!((failover.first_session_after_seconds, failover.clients_held), (None, 0));
    }

    #[test]
    fn a_hiccup_leaves_no_record() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        recorder.sign(Instant::now(), "a does not answer", false, TTL);
        recorder.all_is_well();
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), true);
        assert!(recorder.failovers().is_empty());
    }

    #[test]
    fn a_long_silence_before_is_not_the_first_sign() {
        let recorder = Recorder::new(Arc::new(Metrics::new()));
        let now = Instant::now();
        recorder.sign(now, "its REST API is silent", false, TTL);
        recorder.sign(now + 100 * TTL, "a stops", true, TTL);
        recorder.writable(now + 101 * TTL, &leader("a"), &leader("b"), true);
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
            recorder.writable(Instant::now(), &leader("a"), &leader("b"), true);
        }
        let kept = recorder.failovers();
        assert_eq!((kept.len(), kept[0].first_sign.as_str()), (KEPT, "100"));
    }
}
