//! The figures: the counted observations of one contender's clients in one round, and pgnorth's bounds.

use std::time::Instant;

use crate::clients::{Attempt, Kind, Outcome, Seen};
use crate::faults::Fault;
use crate::session::Acknowledgement;
use crate::truth::Sight;

/// One round as the clients of one contender observed it, with the truth.
pub struct View {
    pub seen: Seen,
    pub fault_at: Instant,
    /// The primary before the fault, and its timeline.
    pub old_primary: Acknowledgement,
    /// The first row on a newer timeline, by any client: from then on a direct client could write there.
    pub new_primary: Option<Sight>,
    /// Time at which the lock expired, if it did.
    pub lock_expiry: Option<Instant>,
}

/// One row of the table.
pub struct Figure {
    pub name: &'static str,
    pub measure: Measure,
    pub must: Must,
}

/// The way to take a figure, and its unit.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Seconds; `None` if the awaited event never came.
    Seconds(fn(&View) -> Option<f64>),
    Count(fn(&View) -> usize),
}

/// pgnorth's bound, over all rounds.
#[derive(Clone, Copy, Debug)]
pub enum Must {
    Nothing,
    /// No round is above this.
    AtMost(f64),
    /// The median, and each round.
    MedianAndWorst(f64, f64),
    /// No round is below this.
    AtLeast(f64),
}

/// The rows of a fault, in a cluster with this ttl in seconds.
pub fn figures(fault: Fault, ttl: u32) -> Vec<Figure> {
    let mut figures = match fault {
        Fault::Switchover | Fault::SwitchoverTls => vec![ADDED.must(Must::MedianAndWorst(0.05, 0.15)), LONGEST_CONNECT],
        Fault::HostKilled => vec![ADDED.must(Must::AtMost(0.1)), LONGEST_CONNECT],
        Fault::HostVanished => vec![
            ADDED.must(Must::AtMost(0.1)),
            LONGEST_CONNECT,
            HANGS,
            // No other member can be primary before the lock expires, so sessions may live until then.
            LINGERS.must(Must::AtMost(ttl.into())),
        ],
        Fault::PatroniFrozen => vec![
            LINGERS,
            AFTER_NEW_PRIMARY.must(Must::AtMost(0.0)),
            // pgnorth counts the ttl from the time at which it received the renewal, less the watch's own latency.
            AFTER_EXPIRY.must(Must::AtLeast(-0.2)),
            REFUSED.must(Must::AtMost(0.0)),
            ADDED,
        ],
        Fault::RestHangs | Fault::DcsDown => vec![KILLED.must(Must::AtMost(0.0))],
        Fault::BackendKilled => vec![LONGEST_CONNECT],
        Fault::ApiCut => vec![ADDED.must(Must::AtMost(1.5)), LONGEST_CONNECT],
    };
    figures.extend([FAILED.must(Must::AtMost(0.0)), READ_ONLY.must(Must::AtMost(0.0))]);
    figures.extend([BROKEN, STALE.must(Must::AtMost(0.0))]);
    figures
}

const ADDED: Figure = seconds("added after the new primary is writable", |view| {
    let acknowledged = view.seen.acknowledged();
    let newer = acknowledged.filter(|(by, _)| by.timeline > view.old_primary.timeline);
    Some(between(view.writable_at()?, newer.map(|(_, at)| at).min()?))
});

const FAILED: Figure = count("new connections that failed", |view| {
    count_of(view, |attempt| matches!(attempt.outcome, Outcome::NotConnected(_))) + on_read_only(view)
});

const READ_ONLY: Figure = count("… of them writes on a read-only server", on_read_only);

const BROKEN: Figure = count("inserts under way that broke", |view| {
    count_of(view, |attempt| matches!(attempt.outcome, Outcome::Broken(_)))
});

const STALE: Figure = count("writes acknowledged by an outdated primary", |view| {
    let is_stale = |(by, at): &(&Acknowledgement, Instant)| match &view.new_primary {
        Some(new) if *at >= new.at => by.server != new.by.server,
        _ => by.server != view.old_primary.server,
    };
    view.seen.acknowledged().filter(is_stale).count()
});

const LONGEST_CONNECT: Figure = seconds("longest connect", |view| {
    let connects = view.seen.attempts.iter();
    let lengths = connects.filter_map(|attempt| {
        let still_waits = attempt.kind == Kind::Comer && attempt.outcome == Outcome::Unfinished;
        let end = attempt.connected.or(still_waits.then_some(attempt.ended))?;
        Some(between(attempt.started, end))
    });
    Some(lengths.fold(0.0, f64::max))
});

const HANGS: Figure = seconds("a writing session hangs for", |view| {
    let of_stayers = view.seen.attempts.iter().filter(|attempt| attempt.kind == Kind::Stayer);
    let inserts = of_stayers.filter(|attempt| !matches!(attempt.outcome, Outcome::NotConnected(_)));
    let lengths = inserts.map(|attempt| between(attempt.started, attempt.ended));
    Some(lengths.fold(0.0, f64::max))
});

const LINGERS: Figure = seconds("the last idle session is closed after", |view| {
    Some(between(view.fault_at, last_idle_end(view)?))
});

const AFTER_NEW_PRIMARY: Figure = seconds("… after the new primary is writable (negative: before)", |view| {
    Some(between(view.writable_at()?, last_idle_end(view)?))
});

const AFTER_EXPIRY: Figure = seconds("the first idle session is closed after the lock's expiry", |view| {
    let first = view.seen.idle.iter().filter_map(|end| *end).min()?;
    Some(between(view.lock_expiry?, first))
});

const REFUSED: Figure = seconds("clients are refused for", |view| {
    let failures = || {
        let attempts = view.seen.attempts.iter();
        attempts.filter(|attempt| matches!(attempt.outcome, Outcome::NotConnected(_)))
    };
    let first = failures().map(|attempt| attempt.started).min();
    let last = failures().map(|attempt| attempt.ended).max();
    Some(first.zip(last).map_or(0.0, |(first, last)| between(first, last)))
});

const KILLED: Figure = count("sessions killed", |view| {
    let idle = view.seen.idle.iter().flatten().count();
    let cut = |attempt: &Attempt| attempt.kind == Kind::Stayer && matches!(attempt.outcome, Outcome::Broken(_));
    idle + count_of(view, cut)
});

const fn seconds(name: &'static str, of: fn(&View) -> Option<f64>) -> Figure {
    Figure {
        name,
        measure: Measure::Seconds(of),
        must: Must::Nothing,
    }
}

const fn count(name: &'static str, of: fn(&View) -> usize) -> Figure {
    Figure {
        name,
        measure: Measure::Count(of),
        must: Must::Nothing,
    }
}

impl View {
    fn writable_at(&self) -> Option<Instant> {
        Some(self.new_primary.as_ref()?.at)
    }
}

impl Figure {
    fn must(self, must: Must) -> Self {
        Self { must, ..self }
    }

    /// Takes the figure from one round.
    pub fn of(&self, view: &View) -> Option<f64> {
        match self.measure {
            Measure::Seconds(of) => of(view),
            Measure::Count(of) => Some(of(view) as f64),
        }
    }
}

impl Must {
    /// Returns true if all rounds together meet the bound; `None` if there is no bound.
    pub fn is_met(self, samples: &[Option<f64>]) -> Option<bool> {
        let holds = |test: &dyn Fn(f64) -> bool| samples.iter().all(|sample| sample.is_some_and(test));
        match self {
            Self::Nothing => None,
            Self::AtMost(most) => Some(holds(&|sample| sample <= most)),
            Self::AtLeast(least) => Some(holds(&|sample| sample >= least)),
            Self::MedianAndWorst(middle, worst) => {
                Some(holds(&|sample| sample <= worst) && median(samples).is_some_and(|found| found <= middle))
            }
        }
    }
}

/// Returns the middle value, or the lower of the two in the middle. An event that never came is the longest time.
pub fn median(samples: &[Option<f64>]) -> Option<f64> {
    *sorted(samples).get(samples.len().saturating_sub(1) / 2)?
}

/// Returns the greatest value. An event that never came is greater than all.
pub fn worst(samples: &[Option<f64>]) -> Option<f64> {
    *sorted(samples).last()?
}

fn sorted(samples: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut sorted = samples.to_vec();
    let key = |sample: &Option<f64>| sample.unwrap_or(f64::INFINITY);
    sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
    sorted
}

fn count_of(view: &View, counts: impl Fn(&Attempt) -> bool) -> usize {
    view.seen.attempts.iter().filter(|attempt| counts(attempt)).count()
}

/// Returns the writes that met a read-only server. A stayer meets one only on a new session that was sent there, which
/// is the same mistake.
fn on_read_only(view: &View) -> usize {
    count_of(view, |attempt| attempt.outcome == Outcome::ReadOnly)
}

/// Returns the end of the idle session that ends last; `None` while any is open.
fn last_idle_end(view: &View) -> Option<Instant> {
    let ends: Option<Vec<Instant>> = view.seen.idle.iter().copied().collect();
    ends?.into_iter().max()
}

/// Returns seconds, negative if `to` is earlier.
fn between(from: Instant, to: Instant) -> f64 {
    if to >= from {
        (to - from).as_secs_f64()
    } else {
        -(from - to).as_secs_f64()
    }
}
