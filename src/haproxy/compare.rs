//! The comparison of HAProxy with pgnorth (pure): from one reading to the next, until a change of leader is over.

use std::time::{Duration, Instant};

use super::sample::Sample;
use crate::leader::MemberName;

/// Time after which a comparison ends even if HAProxy still disagrees.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The states of HAProxy and pgnorth at one point in time.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The time of the reading.
    pub at: Instant,
    /// The state of HAProxy's backend; `None` if the statistics cannot be read, or do not show the backend.
    pub haproxy: Option<&'a Sample>,
    /// The member that accepts writes, as far as pgnorth knows.
    pub primary: Option<&'a MemberName>,
    /// The member whose sessions pgnorth would keep.
    pub leader: Option<&'a MemberName>,
    /// True while pgnorth sees signs of a change of leader.
    pub trouble: bool,
    /// The number of changes of leader that pgnorth has recorded.
    pub changes: u64,
}

/// HAProxy's state, compared with pgnorth's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Only the primary is up.
    Agrees,
    /// A member is up that is not the primary.
    Wrong,
    /// No member is up, so that HAProxy refuses clients.
    Refuses,
    /// HAProxy's statistics cannot be read, or do not show the backend.
    Unseen,
}

/// The totals over one change of leader, or over a time in which HAProxy disagreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The number of the change of leader; `None` if pgnorth's leader stayed.
    pub change: Option<u64>,
    /// Time in which a member was up that was not the primary.
    pub wrong: Duration,
    /// Time in which no member was up.
    pub refused: Duration,
    /// Time in which the state of HAProxy was unknown.
    pub unseen: Duration,
    /// Time in which pgnorth knew no primary, and would have held clients.
    pub held: Duration,
    /// Maximum number of sessions that were open at one time to members other than the leader.
    pub stale_sessions: u64,
    /// Time in which at least one such session was open.
    pub stale: Duration,
    /// True if HAProxy agrees again and no such session is left.
    pub settled: bool,
}

/// The comparison over successive readings.
#[derive(Debug, Default)]
pub struct Comparison {
    last: Option<Last>,
    open: Option<Open>,
    /// True after a lasting disagreement was reported. The next report begins after HAProxy has agreed again, or with a
    /// change of leader.
    reported: bool,
    changes: u64,
}

/// The last reading. The time until the next reading is added to the totals for its state.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    agreement: Agreement,
    stale_sessions: u64,
    /// True if pgnorth has no primary.
    holds: bool,
}

/// A comparison under way.
#[derive(Debug)]
struct Open {
    began: Instant,
    report: Report,
    /// Time of the reading that first saw the change of leader.
    changed: Option<Instant>,
}

impl Comparison {
    /// Returns true while a change of leader or a disagreement is under way.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Adds a reading. Returns the report that the reading completes, if any.
    pub fn add(&mut self, reading: &Reading<'_>) -> Option<Report> {
        let now = Last {
            at: reading.at,
            agreement: agreement(reading),
            stale_sessions: stale_sessions(reading),
            holds: reading.primary.is_none(),
        };
        let before = self.last.replace(now);
        if let (Some(open), Some(before)) = (&mut self.open, before) {
            open.count(before, now);
        }
        let settled = matches!(now.agreement, Agreement::Agrees) && now.stale_sessions == 0 && !reading.trouble;
        let changed = self.changes < reading.changes;
        self.changes = reading.changes;
        // Each change has its own report.
        let previous = self.open.take_if(|open| changed && open.changed.is_some());
        self.reported &= !settled;
        let disagrees = !settled && now.agreement != Agreement::Unseen && !self.reported;
        if self.open.is_none() && (changed || reading.trouble || disagrees) {
            self.open = Some(Open::at(now));
        }
        if let Some(open) = &mut self.open
            && changed
        {
            open.report.change = Some(reading.changes);
            open.changed = Some(now.at);
        }
        // A reading completes at most one report; the next reading completes the other.
        let ended = match previous {
            Some(_) => None,
            None => self.open.take_if(|open| open.is_over(reading, settled)),
        };
        self.reported |= ended.is_some() && !settled;
        let report = previous.or(ended)?.report;
        let something = report.change.is_some() || report.wrong + report.refused + report.stale > Duration::ZERO;
        something.then_some(Report { settled, ..report })
    }
}

impl Open {
    fn at(now: Last) -> Self {
        Self {
            began: now.at,
            changed: None,
            report: Report {
                change: None,
                wrong: Duration::ZERO,
                refused: Duration::ZERO,
                unseen: Duration::ZERO,
                held: Duration::ZERO,
                stale_sessions: now.stale_sessions,
                stale: Duration::ZERO,
                settled: false,
            },
        }
    }

    /// Adds the time between two readings to the totals for the earlier reading's state.
    fn count(&mut self, before: Last, now: Last) {
        let took = now.at.saturating_duration_since(before.at);
        let report = &mut self.report;
        match before.agreement {
            Agreement::Agrees => {}
            Agreement::Wrong => report.wrong += took,
            Agreement::Refuses => report.refused += took,
            Agreement::Unseen => report.unseen += took,
        }
        if before.holds {
            report.held += took;
        }
        if before.stale_sessions > 0 {
            report.stale += took;
        }
        report.stale_sessions = report.stale_sessions.max(now.stale_sessions);
    }

    fn is_over(&self, reading: &Reading<'_>, settled: bool) -> bool {
        let since = self.changed.unwrap_or(self.began);
        let lasting = PATIENCE <= reading.at.saturating_duration_since(since);
        settled || lasting && (self.changed.is_some() || !reading.trouble)
    }
}

/// Compares HAProxy with pgnorth in one reading.
pub fn agreement(reading: &Reading<'_>) -> Agreement {
    let Some(sample) = reading.haproxy else {
        return Agreement::Unseen;
    };
    match reading.primary {
        _ if sample.up.is_empty() => Agreement::Refuses,
        Some(primary) if sample.up.iter().eq([primary]) => Agreement::Agrees,
        _ => Agreement::Wrong,
    }
}

/// Returns the number of sessions to members other than the leader.
pub fn stale_sessions(reading: &Reading<'_>) -> u64 {
    let Some(sample) = reading.haproxy else { return 0 };
    let others = (sample.sessions.iter()).filter(|(member, _)| Some(*member) != reading.leader);
    others.map(|(_, open)| open).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Milliseconds; the member that HAProxy has up; its sessions to a and b; pgnorth's primary; signs; changes.
    type Row<'a> = (u64, &'a str, [u64; 2], &'a str, bool, u64);

    fn member(name: &str) -> Option<MemberName> {
        (!name.is_empty()).then(|| name.into())
    }

    fn reports(rows: &[Row<'_>]) -> Vec<Report> {
        let (begin, mut comparison) = (Instant::now(), Comparison::default());
        let add = |&(at, up, [a, b], primary, trouble, changes): &Row<'_>| {
            let sample = Sample {
                up: up.split_whitespace().map(MemberName::from).collect(),
                sessions: [("a".into(), a), ("b".into(), b)].into(),
            };
            let primary = member(primary);
            comparison.add(&Reading {
                at: begin + Duration::from_millis(at),
                haproxy: (up != "?").then_some(&sample),
                primary: primary.as_ref(),
                leader: primary.as_ref(),
                trouble,
                changes,
            })
        };
        rows.iter().filter_map(add).collect()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_change_is_one_report_with_all_its_times() {
        let rows = [
            (0, "a", [3, 0], "a", false, 0),
            (1_000, "a", [3, 0], "", true, 0),
            (2_600, "a", [3, 0], "b", false, 1),
            (6_000, "", [2, 0], "b", false, 1),
            (8_000, "b", [1, 1], "b", false, 1),
            (13_000, "b", [0, 4], "b", false, 1),
            (14_000, "b", [0, 4], "b", false, 1),
        ];
        let expected = Report {
            change: Some(1),
            wrong: ms(5_000),
            refused: ms(2_000),
            unseen: ms(0),
            held: ms(1_600),
            stale_sessions: 3,
            stale: ms(12_000),
            settled: true,
        };
        assert_eq!(reports(&rows), [expected]);
    }

    #[test]
    fn a_change_that_haproxy_follows_at_once_is_reported_too() {
        let rows = [(0, "a", [1, 0], "a", false, 0), (1_000, "b", [0, 1], "b", false, 1)];
        let [report] = reports(&rows)[..] else { panic!("one") };
        assert_eq!((report.change, report.wrong, report.settled), (Some(1), ms(0), true));
    }

    #[test]
    fn a_false_alarm_of_haproxy_is_a_report_without_a_change() {
        let rows = [
            (0, "a", [1, 0], "a", false, 0),
            (1_000, "", [0, 0], "a", false, 0),
            (4_000, "a", [0, 0], "a", false, 0),
        ];
        let [report] = reports(&rows)[..] else { panic!("one") };
        assert_eq!((report.change, report.refused, report.wrong), (None, ms(3_000), ms(0)));
    }

    #[test]
    fn signs_that_pass_without_a_disagreement_are_no_report() {
        let rows = [(0, "a", [1, 0], "a", true, 0), (1_000, "a", [1, 0], "a", false, 0)];
        assert_eq!(reports(&rows), []);
    }

    #[test]
    fn a_lasting_disagreement_is_reported_once_and_a_later_change_again() {
        let wrong = |second: u64, changes| (second * 1_000, "a b", [0, 0], "b", false, changes);
        let rows: Vec<_> = (0..200).map(|second| wrong(second, u64::from(100 <= second))).collect();
        let [lasting, change] = reports(&rows)[..] else {
            panic!("two reports: {:?}", reports(&rows))
        };
        assert_eq!(
            (lasting.change, lasting.wrong, lasting.settled),
            (None, PATIENCE, false)
        );
        assert_eq!(
            (change.change, change.wrong, change.settled),
            (Some(1), PATIENCE, false)
        );
    }

    #[test]
    fn a_second_change_ends_the_report_of_the_first() {
        let rows = [
            (0, "a", [0, 0], "b", false, 1),
            (1_000, "a", [0, 0], "b", true, 1),
            (2_000, "a", [0, 0], "a", false, 2),
        ];
        let changes: Vec<_> = reports(&rows).into_iter().map(|report| report.change).collect();
        assert_eq!(changes, [Some(1)]);
        let mut more = rows.to_vec();
        more.push((3_000, "a", [0, 0], "a", false, 2));
        let changes: Vec<_> = reports(&more).into_iter().map(|report| report.change).collect();
        assert_eq!(changes, [Some(1), Some(2)]);
    }

    #[test]
    fn time_without_statistics_is_no_evidence() {
        let rows = [
            (0, "a", [1, 0], "a", false, 0),
            (1_000, "?", [0, 0], "", true, 0),
            (3_000, "?", [0, 0], "b", false, 1),
            (4_000, "b", [0, 0], "b", false, 1),
        ];
        let [report] = reports(&rows)[..] else { panic!("one") };
        assert_eq!((report.unseen, report.wrong, report.refused), (ms(3_000), ms(0), ms(0)));
    }

    proptest! {
        #[test]
        fn every_change_is_reported_once_and_no_time_is_counted_twice(
            steps in prop::collection::vec(
                (1_u64..5_000, prop::sample::select(vec!["", "a", "b", "a b", "?"]), [0_u64..3, 0..3],
                 prop::sample::select(vec!["", "a", "b"]), any::<bool>(), 0_u64..2), 0..60)
        ) {
            let (mut at, mut changes) = (0, 0);
            let mut rows: Vec<Row<'_>> = steps.iter().map(|&(after, up, sessions, primary, trouble, more)| {
                (at, changes) = (at + after, changes + more);
                (at, up, sessions, primary, trouble, changes)
            }).collect();
            rows.push((at + 1, "b", [0, 0], "b", false, changes));
            let reports = reports(&rows);
            let numbers: Vec<_> = reports.iter().filter_map(|report| report.change).collect();
            prop_assert_eq!(numbers, (1..=changes).collect::<Vec<_>>());
            let counted: Duration = reports.iter().map(|report| report.wrong + report.refused + report.unseen).sum();
            prop_assert!(counted <= ms(at + 1));
        }
    }
}
