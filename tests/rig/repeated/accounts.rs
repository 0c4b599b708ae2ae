//! The result of each insert: every attempt, every row and every observed primary are compared with each other.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime};

use super::faults::Fault;
use crate::support::Member;
use crate::support::load::{Attempt, Outcome};

/// A fault that is over, and the clients that it may have failed.
pub struct Endured {
    pub fault: Fault,
    pub began: Instant,
    /// Time at which an open session ended, if it had to. Sessions that began later had to live.
    pub ended: Option<Instant>,
    /// New connections that began later had to succeed; `None` means all.
    pub excused_until: Option<Instant>,
}

/// A primary that was observed, some time after its promotion.
pub struct Term {
    pub timeline: u32,
    pub server: String,
    pub seen: Instant,
}

/// A row on the final primary: the server that inserted it, and its timeline.
struct Row {
    server: String,
    timeline: u32,
}

/// Returns every row that this member has, by its key.
async fn rows(member: &Member) -> HashMap<String, Row> {
    let text = member
        .psql("select id, server, timeline from load")
        .await
        .expect("read all rows");
    let row = |line: &str| {
        let mut fields = line.rsplitn(3, '|');
        let timeline = u32::from_str_radix(fields.next()?, 16).ok()?;
        let server = fields.next()?.to_owned();
        Some((fields.next()?.to_owned(), Row { server, timeline }))
    };
    text.lines()
        .map(|line| row(line).expect("a row of three columns"))
        .collect()
}

/// Checks that no write met a read-only server, that no session broke that had to live, and that no client failed to
/// connect without an excuse.
pub fn check_failures(attempts: &[Attempt], faults: &[Endured]) {
    let (mut broken, mut excused, mut failed) = (0, Vec::new(), Vec::new());
    for attempt in attempts {
        let fault = faults.iter().rfind(|fault| fault.began <= attempt.ended);
        let excuse = match &attempt.outcome {
            Outcome::Acknowledged { .. } => continue,
            Outcome::Broken(_) => {
                broken += 1;
                let until = fault.and_then(|fault| fault.ended);
                until.is_some_and(|until| attempt.started <= until)
            }
            Outcome::NotConnected(_) => {
                let until = fault.and_then(|fault| fault.excused_until);
                until.is_some_and(|until| attempt.started <= until)
            }
            Outcome::ReadOnly(_) => false,
        };
        let (lasted, at) = (attempt.ended - attempt.started, time_of_day(attempt.ended));
        let fault = fault.map(|fault| fault.fault);
        let line = format!("{fault:?}, at {at} after {lasted:?}: {:?}", attempt.outcome);
        if !excuse {
            failed.push(line);
        } else if matches!(attempt.outcome, Outcome::NotConnected(_)) {
            excused.push(line);
        }
    }
    eprintln!(
        "{} attempts, {broken} broken in the middle, {} excused: {excused:#?}",
        attempts.len(),
        excused.len()
    );
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}

/// Checks that each acknowledged row is there, and that the primary of the newest timeline at that time acknowledged
/// it.
pub async fn check_rows(attempts: &[Attempt], primary: &Member, terms: &[Term]) {
    let rows = rows(primary).await;
    let mut acknowledged: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Acknowledged { server } => Some((attempt.ended, attempt.id.as_str(), server.as_str())),
            _ => None,
        })
        .collect();
    acknowledged.sort();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|(_, id, _)| !rows.contains_key(*id))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged rows are lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );

    let mut counts = BTreeMap::new();
    let mut newest = 0;
    for (at, id, server) in acknowledged {
        let row = &rows[id];
        assert_eq!(row.server, server, "the row {id} is not the one that was acknowledged");
        assert!(
            row.timeline >= newest,
            "{server} acknowledged {id} on timeline {} after a row on timeline {newest}",
            row.timeline
        );
        newest = row.timeline;
        check_term(row, at, terms);
        let (owner, count) = counts.entry(row.timeline).or_insert((server.to_owned(), 0));
        assert_eq!(*owner, server, "two servers acknowledged rows on timeline {newest}");
        *count += 1;
    }
    eprintln!("rows a timeline: {counts:?}");
    for term in terms {
        assert!(
            counts.contains_key(&term.timeline),
            "no row on timeline {}",
            term.timeline
        );
    }
}

/// Checks that the row's timeline is its server's, and that no newer one had been observed when the row was
/// acknowledged.
fn check_term(row: &Row, acknowledged: Instant, terms: &[Term]) {
    for term in terms {
        assert!(
            term.timeline <= row.timeline || acknowledged < term.seen,
            "{} acknowledged a row on timeline {} {:?} after timeline {} was seen on {}",
            row.server,
            row.timeline,
            acknowledged - term.seen,
            term.timeline,
            term.server
        );
        assert!(
            term.timeline != row.timeline || term.server == row.server,
            "{} acknowledged a row on timeline {}, which is {}'s",
            row.server,
            row.timeline,
            term.server
        );
    }
}

/// Returns the time in UTC, as the logs have it.
fn time_of_day(then: Instant) -> String {
    let since = (SystemTime::now() - then.elapsed()).duration_since(SystemTime::UNIX_EPOCH);
    let since = since.expect("after 1970");
    let seconds = since.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03}",
        seconds % 60,
        since.subsec_millis()
    )
}
