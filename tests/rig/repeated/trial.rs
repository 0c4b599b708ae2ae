//! Clients that insert through pgnorth over many faults; at the end every attempt is accounted for.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use crate::support::load::{Attempt, Load, Outcome};
use crate::support::{Member, Product, Rig, psql, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(30);
/// Endings of sessions that pgnorth itself has turned away.
const TURNED_AWAY: [&str; 4] = ["hold_expired", "full", "shutdown", "failed"];

/// What may happen to new connections.
#[derive(PartialEq)]
pub enum Failures {
    None,
    /// A login that the fault itself cuts may fail. Nobody may be refused all the same, and the test prints them.
    Told,
}

/// Clients that insert through pgnorth while the primary changes, and what was seen of the primaries.
pub struct Trial<'a> {
    rig: &'a Rig,
    product: Product,
    load: Load,
    terms: Vec<Term>,
}

/// A primary that was seen, some time after its promotion.
struct Term {
    timeline: u32,
    server: String,
    seen: Instant,
}

/// A row on the final primary: which server has inserted it, on which timeline.
struct Row {
    server: String,
    timeline: u32,
}

impl<'a> Trial<'a> {
    /// Afterwards clients are at work.
    pub async fn start(rig: &'a Rig, hold: &str) -> Self {
        let leader = rig.leader().await;
        // The server itself writes down its timeline with each row: the first 8 digits of its current WAL file's name.
        let table = "create table load (id text primary key, server text default host(inet_server_addr()),
                     timeline text default left(pg_walfile_name(pg_current_wal_lsn()), 8))";
        leader.psql(table).await.expect("make the table");
        let product = Product::start(rig, &["--hold", hold], &[]).await;
        product.wait_until_writable(SOON).await;
        let load = Load::start(product.address(), 3).await;
        let mut trial = Self {
            rig,
            product,
            load,
            terms: Vec::new(),
        };
        trial.note(leader).await;
        trial
    }

    /// Remembers that this member is the primary of its timeline from now on, at the latest.
    pub async fn note(&mut self, leader: &Member) {
        let timeline = wait_until("the primary says its timeline", SOON, async || {
            leader.status().await?["timeline"].as_u64()
        })
        .await;
        self.terms.push(Term {
            timeline: u32::try_from(timeline).expect("a timeline has 32 bits"),
            server: leader.ip().to_string(),
            seen: Instant::now(),
        });
    }

    /// Waits until a client of pgnorth is served by this member, as a primary.
    pub async fn reaches(&self, leader: &Member) {
        wait_until("a client reaches the primary", SOON, async || {
            let sql = "select host(inet_server_addr()) where not pg_is_in_recovery()";
            let server = psql(self.product.address(), sql).await.ok()?;
            (server == leader.ip().to_string()).then_some(())
        })
        .await;
    }

    /// Ends the clients and checks every attempt; at least `timelines` have to have rows.
    pub async fn finish(self, timelines: usize, failures: Failures) {
        let attempts = self.load.finish().await;
        let rows = rows(self.rig.leader().await).await;
        let failed = sort_out(&attempts);
        for ending in TURNED_AWAY {
            let labels = [("ending", ending)];
            let count = self.product.metric("pgnorth_sessions_ended_total", &labels).await;
            assert_eq!(count, Some(0.0), "{ending}");
        }
        check_rows(&attempts, &rows, &self.terms, timelines);
        assert!(
            failures == Failures::Told || failed.is_empty(),
            "{} new connections failed",
            failed.len()
        );
    }
}

/// Every row that this member has, by its key.
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

/// Returns the connections that failed; a write on a read-only server is none of them, and fails the test.
fn sort_out(attempts: &[Attempt]) -> Vec<String> {
    let mut failed = Vec::new();
    let mut broken = 0;
    for attempt in attempts {
        match &attempt.outcome {
            Outcome::Acknowledged { .. } => {}
            Outcome::Broken(_) => broken += 1,
            Outcome::NotConnected(error) => {
                let (lasted, at) = (attempt.ended - attempt.started, time_of_day(attempt.ended));
                failed.push(format!("at {at} after {lasted:?}: {error}"));
            }
            Outcome::ReadOnly(error) => panic!("a write went to a read-only server: {error}"),
        }
    }
    eprintln!(
        "{} attempts, {broken} broken in the middle, {} not connected: {failed:#?}",
        attempts.len(),
        failed.len()
    );
    failed
}

/// Each acknowledged row is there, and was acknowledged by the primary of the newest timeline of its moment.
fn check_rows(attempts: &[Attempt], rows: &HashMap<String, Row>, terms: &[Term], timelines: usize) {
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
    assert!(counts.len() >= timelines, "rows on {} timelines only", counts.len());
}

/// The row's timeline is its server's, and no newer one had been seen when the row was acknowledged.
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

/// In UTC, as the logs have it.
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
