//! A subscription whose publisher is pgnorth's address follows the primary, with a failover slot of PostgreSQL 17: no row
//! is lost or arrives twice. Prints a row of the table in `docs/operating/clients.md`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::process::{Process, run};
use crate::support::psql::PASSWORD;
use crate::support::{Dcs, Member, Product, Rig, Settings, psql, session, wait_until};

const SOON: Duration = Duration::from_secs(60);
const FAILOVER: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test]
#[ignore = "needs PostgreSQL 17 in PGNORTH_POSTGRESQL: make test-clients"]
async fn a_subscription_with_a_failover_slot_follows_the_primary() {
    let rig = Rig::start_with(Dcs::Etcd, settings()).await;
    for member in rig.members() {
        wait_for_the_standbys_of(&rig, member).await;
    }
    let product = Product::start_on_etcd(&rig, &["--hold", "60s"]).await;
    product.wait_until_writable(SOON).await;
    let leader = rig.leader().await;
    leader
        .psql("create table orders (id bigint not null)")
        .await
        .expect("make the table");
    leader
        .psql("create publication orders for table orders")
        .await
        .expect("publish it");
    let subscriber = Subscriber::start(rig.folder()).await;
    subscriber
        .sql("create table orders (id bigint not null, at timestamptz default clock_timestamp())")
        .await;
    let publisher = format!(
        "host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname=postgres application_name=orders",
        product.address().port()
    );
    let subscription =
        format!("create subscription orders connection '{publisher}' publication orders with (failover = true)");
    subscriber.sql(&subscription).await;
    let writer = Writer::start(product.address());

    for crashes in [false, true] {
        slot_is_on_every_standby(&rig).await;
        let arrived = subscriber.count().await;
        wait_until("rows arrive", SOON, async || {
            (arrived + 20 <= subscriber.count().await).then_some(())
        })
        .await;
        let old = rig.leader().await;
        match crashes {
            true => old.kill_host(),
            false => rig.switchover(None).await,
        }
        rig.wait_for_new_leader(old, FAILOVER).await;
        if crashes {
            old.start();
        }
        rig.wait_until_whole(WHOLE).await;
    }
    let arrived = subscriber.count().await;
    wait_until("rows arrive again", SOON, async || {
        (arrived + 20 <= subscriber.count().await).then_some(())
    })
    .await;

    let acknowledged = writer.finish().await;
    let there = ids(&rig
        .leader()
        .await
        .psql("select id from orders")
        .await
        .expect("read the rows"));
    wait_until("the subscriber has every row", SOON, async || {
        (there.len() <= subscriber.count().await).then_some(())
    })
    .await;
    let copied = subscriber.sql("select id from orders").await;
    assert_eq!(
        copied.lines().count(),
        there.len(),
        "rows at the subscriber, twice or lost"
    );
    assert_eq!(ids(&copied), there, "rows at the subscriber and at the publisher");
    assert!(acknowledged.is_subset(&there), "acknowledged rows are lost");
    let longest = "select round(extract(epoch from max(gap)), 1) from (select at - lag(at) over (order by at) gap from orders) gaps";
    println!(
        "| logical replication | {} rows, none lost, none twice | {} s |",
        there.len(),
        subscriber.sql(longest).await
    );
}

/// Clients that insert one row at a time through pgnorth, and remember those that were acknowledged.
struct Writer {
    stop: CancellationToken,
    task: JoinHandle<BTreeSet<u64>>,
}

impl Writer {
    fn start(address: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut acknowledged, mut id) = (BTreeSet::new(), 0);
            while !stopped.is_cancelled() {
                let Ok(client) = session(address).await else { continue };
                while !client.is_closed() && !stopped.is_cancelled() {
                    id += 1;
                    if client
                        .batch_execute(&format!("insert into orders values ({id})"))
                        .await
                        .is_ok()
                    {
                        acknowledged.insert(id);
                    }
                    sleep(PAUSE).await;
                }
            }
            acknowledged
        });
        Self { stop, task }
    }

    async fn finish(self) -> BTreeSet<u64> {
        self.stop.cancel();
        self.task.await.expect("no panic")
    }
}

/// A PostgreSQL of its own, which subscribes.
struct Subscriber {
    _process: Process,
    address: SocketAddr,
}

impl Subscriber {
    async fn start(folder: &Path) -> Self {
        let programs = PathBuf::from(std::env::var_os("PGNORTH_POSTGRESQL").expect("PGNORTH_POSTGRESQL is set"));
        let home = folder.join("subscriber");
        run(
            "install",
            &[
                "-d",
                "-m",
                "700",
                "-o",
                "postgres",
                "-g",
                "postgres",
                home.to_str().expect("UTF-8"),
            ],
        );
        let password = home.join("password");
        fs::write(&password, PASSWORD).expect("write the password");
        run("chown", &["postgres:", password.to_str().expect("UTF-8")]);
        let as_postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
            command.arg(programs.join(program)).current_dir(&home);
            command
        };
        let data = home.join("data");
        let mut initdb = as_postgres("initdb");
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password);
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--no-sync"]);
        let made = initdb.output().expect("run initdb");
        assert!(made.status.success(), "{made:?}");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let mut postgres = as_postgres("postgres");
        postgres
            .arg("-D")
            .arg(&data)
            .args(["-p", &address.port().to_string(), "-c", "listen_addresses=127.0.0.1"]);
        postgres
            .arg("-c")
            .arg(format!("unix_socket_directories={}", home.display()));
        let process = Process::start("subscriber", postgres, &folder.join("subscriber.log"));
        wait_until("the subscriber runs", SOON, async || {
            psql(address, "select 1").await.ok().map(drop)
        })
        .await;
        Self {
            _process: process,
            address,
        }
    }

    async fn sql(&self, sql: &str) -> String {
        psql(self.address, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn count(&self) -> usize {
        self.sql("select count(*) from orders").await.parse().expect("a number")
    }
}

fn ids(text: &str) -> BTreeSet<u64> {
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

/// Sends nothing to the subscriber that the standbys do not have yet. Patroni names their slots after them. The setting is
/// each member's own: a slot of the leader's own name does not exist.
async fn wait_for_the_standbys_of(rig: &Rig, member: &Member) {
    let slots: Vec<_> = rig.others(member).map(|other| other.name().replace('-', "_")).collect();
    let set = format!("alter system set synchronized_standby_slots = '{}'", slots.join(","));
    for sql in [set.as_str(), "select pg_reload_conf()"] {
        member.psql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Waits until a failover to any standby finds the slot there. A former primary keeps the slot as its own, and PostgreSQL
/// synchronizes none of that name ("same name slot already exists on the standby"): somebody has to drop it, as the
/// development version of Patroni does (patroni#3493).
async fn slot_is_on_every_standby(rig: &Rig) {
    wait_until("the slot is on every standby", WHOLE, async || {
        let leader = rig.find_leader().await?;
        for standby in rig.others(leader) {
            let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                        where failover and not synced and pg_is_in_recovery()";
            standby.psql(drop).await.ok()?;
            let ready = "select count(*) from pg_replication_slots where slot_name = 'orders' and synced and not temporary \
                         and invalidation_reason is null";
            (standby.psql(ready).await.ok()? == "1").then_some(())?;
        }
        Some(())
    })
    .await;
}

/// Patroni from 4.0.5 on leaves slots with `failover` alone.
fn settings() -> Settings {
    let parameters = json!({"wal_level": "logical", "hot_standby_feedback": "on", "sync_replication_slots": "on"});
    Settings {
        synchronous: true,
        failsafe: true,
        dynamic: json!({"postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": parameters}}),
        ..Settings::default()
    }
}
