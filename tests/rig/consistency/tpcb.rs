//! TPC-B, as pgbench has it: sessions that come and go through both pgnorths.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::workload::{DEADLINE, session};
use crate::support::Member;
use crate::support::psql::PASSWORD;
use crate::support::random::Random;

/// Branches. The sessions wait for each other's update of one, as in pgbench.
const SCALE: usize = 5;
const TELLERS: usize = 10 * SCALE;
const ACCOUNTS: usize = 100_000 * SCALE;
/// Pause of a session between two transactions: 200 sessions on two cores are to be there, not to be fast.
const PAUSE: Duration = Duration::from_secs(1);
/// Mean number of transactions of a session.
const SESSION: usize = 60;

/// Sessions at work.
pub struct TpcB {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sessions: AtomicU64,
    committed: AtomicU64,
    broken: AtomicU64,
}

impl TpcB {
    /// Fills pgbench's tables.
    pub async fn prepare(primary: &Member) {
        let mut pgbench = Command::new("pgbench");
        pgbench.args(["--initialize", "--quiet", "--scale", &SCALE.to_string()]);
        pgbench.args([
            "--host",
            &primary.ip().to_string(),
            "--username",
            "postgres",
            "postgres",
        ]);
        let status = pgbench.env("PGPASSWORD", PASSWORD).status().await.expect("run pgbench");
        assert!(status.success(), "pgbench fills its tables");
    }

    /// Starts this many sessions at each address.
    pub fn start(addresses: &[SocketAddr], sessions: usize, random: &mut Random) -> Self {
        let (stop, counts) = (CancellationToken::new(), Arc::new(Counts::default()));
        let mut tasks = JoinSet::new();
        for address in addresses.iter().flat_map(|address| vec![*address; sessions]) {
            let random = Random(random.below(usize::MAX) as u64);
            tasks.spawn(client(address, random, stop.clone(), counts.clone()));
        }
        Self { stop, tasks, counts }
    }

    /// Ends the sessions after their present transactions; returns what they did.
    pub async fn finish(&mut self) -> String {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} sessions, {} transactions, {} broken sessions",
            count(&self.counts.sessions),
            count(&self.counts.committed),
            count(&self.counts.broken)
        )
    }
}

/// Returns the sums of all changes: of accounts, tellers, branches and the history. They are equal in a database that lost no
/// part of a transaction.
pub async fn sums(session: &Client) -> Result<Vec<i64>, Error> {
    let sums = "select (select sum(abalance) from pgbench_accounts)::bigint,
                       (select sum(tbalance) from pgbench_tellers)::bigint,
                       (select sum(bbalance) from pgbench_branches)::bigint,
                       (select sum(delta) from pgbench_history)::bigint";
    let row = session.query_one(sums, &[]).await?;
    Ok((0..4).map(|column| row.get(column)).collect())
}

async fn client(address: SocketAddr, mut random: Random, stop: CancellationToken, counts: Arc<Counts>) {
    while !stop.is_cancelled() {
        sleep(PAUSE).await;
        let Ok(Ok(session)) = timeout(DEADLINE, session(address)).await else {
            continue;
        };
        counts.sessions.fetch_add(1, Ordering::Relaxed);
        for _ in 0..random.below(2 * SESSION) {
            match timeout(DEADLINE, transaction(&session, &mut random)).await {
                Ok(Ok(())) => counts.committed.fetch_add(1, Ordering::Relaxed),
                _ => {
                    counts.broken.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            };
            if stop.is_cancelled() {
                break;
            }
            sleep(PAUSE).await;
        }
    }
}

async fn transaction(session: &Client, random: &mut Random) -> Result<(), Error> {
    let mut below = |bound| 1 + random.below(bound);
    let (account, teller, branch) = (below(ACCOUNTS), below(TELLERS), below(SCALE));
    let delta = i64::try_from(below(10_001)).expect("a small number") - 5_001;
    for statement in [
        "begin".to_owned(),
        format!("update pgbench_accounts set abalance = abalance + {delta} where aid = {account}"),
        format!("select abalance from pgbench_accounts where aid = {account}"),
        format!("update pgbench_tellers set tbalance = tbalance + {delta} where tid = {teller}"),
        format!("update pgbench_branches set bbalance = bbalance + {delta} where bid = {branch}"),
        format!(
            "insert into pgbench_history (tid, bid, aid, delta, mtime) values ({teller}, {branch}, {account}, {delta}, now())"
        ),
        "commit".to_owned(),
    ] {
        session.simple_query(&statement).await?;
    }
    Ok(())
}
