//! One version of Patroni with one of PostgreSQL: what clients see of a switchover, a crash of the primary's host and
//! a REST API that hangs. Prints a row of the table in `docs/operating/versions.md`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::load::{Attempt, Load, Outcome};
use crate::support::rig::cache;
use crate::support::{Dcs, Member, Product, Rig, Settings, session, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(60);
/// A member may have to be cloned again: without `pg_rewind`, there is no other way back after a crash.
const WHOLE: Duration = Duration::from_secs(180);
/// The ttl is 20 s.
const HANGS_FOR: Duration = Duration::from_secs(26);
const SESSIONS: usize = 10;
const CLIENTS: usize = 4;
/// A session to the former primary that lives for longer than this after the first insert on the new one ended late.
const LATE: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "one of many pairs: make test-versions"]
async fn one_pair() {
    let dcs = match std::env::var("PGNORTH_DCS").as_deref() {
        Ok("endpoints") => Dcs::Endpoints,
        _ => Dcs::Etcd,
    };
    let rig = Rig::start_with(dcs, settings()).await;
    let product = Product::start(&rig, &["--hold", "60s"], &[]).await;
    product.wait_until_writable(SOON).await;

    let switchover = change(&rig, &product, async |_: &Member| rig.switchover(None).await).await;
    let crash = change(&rig, &product, async |old: &Member| old.kill_host()).await;
    let hang = hang(&rig, &product).await;
    let source = if dcs == Dcs::Etcd { "REST" } else { "Endpoints" };
    let (patroni, postgresql) = versions(&rig).await;
    let libpq = libpq_18(&rig, &product, &postgresql).await;
    println!(
        "| {patroni} | {postgresql} | {source} | {} | {} | {} | {libpq} |",
        switchover.cell("cut late"),
        crash.cell("cut late"),
        hang.cell("false ends"),
    );
    for (fault, seen) in [("switchover", &switchover), ("crash", &crash), ("hang", &hang)] {
        seen.check(fault);
    }
    assert_eq!(hang.logins_cut, 0, "logins broke while the REST API hung");
}

/// What clients saw of one fault.
struct Seen {
    /// Connections that pgnorth refused.
    refused: usize,
    /// Connections that broke before they were ready: the server ended while they logged in.
    logins_cut: usize,
    /// Writes that met a server in recovery.
    read_only: usize,
    /// Longest time from the start of a connection to its acknowledged insert.
    longest: Duration,
    /// Sessions that ended late, or that ended although they had to live.
    wrong_ends: usize,
}

impl Seen {
    fn new(attempts: &[Attempt], wrong_ends: usize) -> Self {
        let count = |kind: fn(&Outcome) -> bool| attempts.iter().filter(|attempt| kind(&attempt.outcome)).count();
        let is_refusal = |error: &str| error.contains("no primary could be reached");
        let refused = attempts
            .iter()
            .filter(|attempt| matches!(&attempt.outcome, Outcome::NotConnected(error) if is_refusal(error)))
            .count();
        Self {
            refused,
            logins_cut: count(|outcome| matches!(outcome, Outcome::NotConnected(_))) - refused,
            read_only: count(|outcome| matches!(outcome, Outcome::ReadOnly(_))),
            longest: acknowledged(attempts)
                .map(|(attempt, _)| attempt.ended - attempt.started)
                .max()
                .expect("rows arrived"),
            wrong_ends,
        }
    }

    /// Returns the cell of the table.
    fn cell(&self, wrong_ends: &str) -> String {
        format!(
            "{} refused, {} logins cut, {:.1} s, {} {wrong_ends}",
            self.refused,
            self.logins_cut,
            self.longest.as_secs_f64(),
            self.wrong_ends
        )
    }

    fn check(&self, fault: &str) {
        assert_eq!(
            (self.refused, self.read_only, self.wrong_ends),
            (0, 0, 0),
            "{fault}: refused, sent to a server in recovery, sessions that ended wrongly"
        );
    }
}

/// Applies a fault that moves the primary, and waits until the cluster is whole again.
async fn change<'a>(rig: &'a Rig, product: &Product, strike: impl AsyncFn(&'a Member)) -> Seen {
    let old = rig.leader().await;
    let sessions = Sessions::open(product).await;
    let load = Load::start(product.address(), CLIENTS).await;
    strike(old).await;
    let new = rig.wait_for_new_leader(old, FAILOVER).await;
    rows_arrive(new).await;
    let ends = sessions.ends(SOON).await;
    let attempts = load.finish().await;
    if old.process_count() == 0 {
        old.start();
    }
    rig.wait_until_whole(WHOLE).await;

    let on_new = IpAddr::V4(new.ip()).to_string();
    let first = acknowledged(&attempts)
        .find(|(_, server)| *server == on_new)
        .map(|(attempt, _)| attempt.ended)
        .expect("a row on the new primary");
    let in_time = ends.iter().filter(|end| **end <= first + LATE).count();
    Seen::new(&attempts, SESSIONS - in_time)
}

/// Drops every packet to the primary's REST API for longer than the ttl; its lock is renewed all the while.
async fn hang(rig: &Rig, product: &Product) -> Seen {
    let leader = rig.leader().await;
    let sessions = Sessions::open(product).await;
    let load = Load::start(product.address(), CLIENTS).await;
    leader.silence_rest();
    sleep(HANGS_FOR).await;
    assert!(leader.get("/primary").await.is_err(), "the REST API hangs");
    rows_arrive(leader).await;
    leader.restore_rest();
    let ends = sessions.ends(Duration::ZERO).await;
    Seen::new(&load.finish().await, ends.len())
}

/// Sessions that stay open, and the times at which they end.
struct Sessions {
    stop: CancellationToken,
    ends: JoinSet<Option<Instant>>,
}

impl Sessions {
    async fn open(product: &Product) -> Self {
        let mut sessions = Self {
            stop: CancellationToken::new(),
            ends: JoinSet::new(),
        };
        for _ in 0..SESSIONS {
            let client = session(product.address()).await.expect("a session");
            sessions.ends.spawn(end(client, sessions.stop.clone()));
        }
        sessions
    }

    /// Returns the times at which sessions ended; those that are still open after `within` have none.
    async fn ends(mut self, within: Duration) -> Vec<Instant> {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            sleep(within).await;
            stop.cancel();
        });
        let mut ends = Vec::new();
        while let Some(end) = self.ends.join_next().await {
            ends.extend(end.expect("no panic"));
        }
        ends
    }
}

/// Waits for the end of a session; returns `None` if it is open when `stop` is cancelled.
async fn end(client: Client, stop: CancellationToken) -> Option<Instant> {
    while !client.is_closed() {
        if stop.is_cancelled() {
            return client.simple_query("select 1").await.err().map(|_| Instant::now());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Some(Instant::now())
}

/// Returns the attempts that inserted a row, with the server that acknowledged it.
fn acknowledged(attempts: &[Attempt]) -> impl Iterator<Item = (&Attempt, &str)> {
    attempts.iter().filter_map(|attempt| match &attempt.outcome {
        Outcome::Acknowledged { server } => Some((attempt, server.as_str())),
        _ => None,
    })
}

/// Waits for twenty more rows on this member.
async fn rows_arrive(member: &Member) {
    let count = async || {
        let count = member.psql("select count(*) from load").await;
        count.ok()?.parse::<usize>().ok()
    };
    let before = wait_until("the primary counts its rows", SOON, count).await;
    wait_until("rows arrive", SOON, async || {
        count().await.filter(|now| *now >= before + 20)
    })
    .await;
}

/// Returns the versions of Patroni and PostgreSQL, as they report them.
async fn versions(rig: &Rig) -> (String, String) {
    let leader = rig.leader().await;
    let status = leader.status().await.expect("Patroni answers");
    let postgresql = leader.psql("show server_version").await.expect("a version");
    let patroni = status["patroni"]["version"].as_str().expect("a version").to_owned();
    let postgresql = postgresql.split(' ').next().unwrap_or_default().to_owned();
    (patroni, postgresql)
}

/// Connects with libpq 18 through pgnorth, with all that is new there, and cancels statements; returns the table's cell.
/// PostgreSQL accepts direct TLS since 17, and has protocol 3.2, with long cancel keys, since 18.
async fn libpq_18(rig: &Rig, product: &Product, postgresql: &str) -> String {
    let major: u32 = postgresql
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .expect("a version");
    let negotiation = if major < 17 { "postgres" } else { "direct" };
    let output = Command::new(cache().join("patroni/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/versions/libpq.py"))
        .arg(product.address().port().to_string())
        .arg(rig.authority())
        .arg(negotiation)
        .output()
        .await
        .expect("run Python");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success(),
        "libpq 18: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let protocol = if major < 18 { " 3.0," } else { " 3.2," };
    assert!(text.contains(protocol), "libpq 18: {text}");
    text
}

/// Without `pg_rewind`, which not every build has, a member that crashed as the primary is cloned again.
fn settings() -> Settings {
    let postgresql = json!({
        "use_pg_rewind": true,
        "use_slots": true,
        "remove_data_directory_on_diverged_timelines": true,
        "remove_data_directory_on_rewind_failure": true,
    });
    Settings {
        dynamic: json!({"postgresql": postgresql}),
        ..Settings::default()
    }
}
