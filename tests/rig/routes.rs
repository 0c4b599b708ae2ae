//! Readers on real replicas: a route with a lag limit through crashes, a paused replay, a REST API that hangs, and a
//! promotion; and synchronous standbys. Clients check at every query whether their server is in recovery, and its lag.

mod contenders;
mod fairness;
mod readers;
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::support::{Dcs, Member, Product, Rig, Settings, session, wait_until};
use readers::{Crowd, Position, Readers, Seen, ask};

const SOON: Duration = Duration::from_secs(10);
const FAILOVER: Duration = Duration::from_secs(60);
/// Four clients that connect, ask once and disconnect, all the time.
const NEWCOMERS: Crowd = Crowd {
    newcomers: 4,
    pause: Duration::from_millis(10),
    sessions: 0,
    lifetime: None,
};

const FLAGS: [&str; 4] = [
    "--route",
    "127.0.0.1:0=replica,max-lag=16MB",
    "--route",
    "127.0.0.1:0=read-only",
];

#[tokio::test]
async fn readers_follow_the_replicas_that_are_fit() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let product = Product::start(&rig, &FLAGS, &[]).await;
    readers_follow(&rig, &product).await;
}

#[tokio::test]
async fn readers_follow_the_replicas_by_etcd() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start_on_etcd(&rig, &FLAGS).await;
    readers_follow(&rig, &product).await;
}

#[tokio::test]
async fn readers_follow_the_replicas_by_the_members_answers_alone() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start(&rig, &FLAGS, &[]).await;
    readers_follow(&rig, &product).await;
}

async fn readers_follow(rig: &Rig, product: &Product) {
    let [replicas, reads] = addresses(product).await;
    let leader = rig.leader().await;
    let [first, second] = both(rig.others(leader));
    treats(product, 1, first, "fit").await;
    treats(product, 1, second, "fit").await;
    println!("readers are spread: {:?}", spread(replicas).await);
    assert_eq!(spread(replicas).await.len(), 2, "both replicas serve");
    assert_eq!(
        spread(reads).await.len(),
        3,
        "and the primary, too, on the route for reads"
    );

    // A crash of a replica: new connections go to the other one.
    let position = Position::follow(rig);
    let readers = Readers::start(replicas, &position, NEWCOMERS);
    first.kill_host();
    sleep(Duration::from_secs(3)).await;
    first.start();
    let seen = readers.finish().await;
    none_fails("crash of a replica", &seen);
    // The DCS still has what it wrote before the crash.
    wait_until("it runs again", FAILOVER, async || {
        let status = first.status().await?;
        (status["state"] == "running" && status["replication_state"] == "streaming").then_some(())
    })
    .await;
    rig.wait_until_whole(FAILOVER).await;
    treats(product, 1, first, "fit").await;

    // A replay that is paused: its sessions stay, and new ones go to the other replica.
    let on_second = session_on(replicas, second).await;
    // By a signal: Patroni resumes a replay that was paused by SQL.
    let startup = startup_process(second);
    kill_process(startup, Signal::STOP).expect("pause the replay");
    let readers = Readers::start(replicas, &position, NEWCOMERS);
    write_40_mb(leader).await;
    let began = Instant::now();
    treats(product, 1, second, "closed").await;
    let seen = readers.take();
    println!(
        "paused replay: closed after {:?}, with {} late reads",
        began.elapsed(),
        seen.late_reads
    );
    sleep(Duration::from_secs(3)).await;
    let seen = readers.finish().await;
    none_fails("paused replay", &seen);
    // One per client: each may have been on its way when the member was closed.
    assert!(seen.late_reads <= NEWCOMERS.newcomers, "{seen:?}");
    assert_eq!(
        spread(replicas).await.keys().collect::<Vec<_>>(),
        [&first.address().to_string()]
    );
    assert!(ask(&on_second).await.expect("the session lives").in_recovery);
    kill_process(startup, Signal::CONT).expect("resume the replay");
    treats(product, 1, second, "fit").await;

    // A REST API that hangs for less than 15 s takes nobody out.
    second.freeze_patroni();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(6) {
        assert_eq!(treatment(product, 1, second).await, "fit");
        ask(&on_second).await.expect("the session lives");
        sleep(Duration::from_millis(500)).await;
    }
    second.thaw_patroni();
    rig.wait_until_whole(FAILOVER).await;

    // A promotion ends the sessions of the route to replicas, and keeps those of the route for reads.
    let for_reads = session_on(reads, second).await;
    let readers = Readers::start(replicas, &position, NEWCOMERS);
    rig.switchover(Some(second.name())).await;
    treats(product, 1, second, "out").await;
    wait_until("the session on the promoted replica ends", SOON, async || {
        on_second.is_closed().then_some(())
    })
    .await;
    let seen = readers.finish().await;
    none_fails("promotion", &seen);
    assert!(
        !ask(&for_reads).await.expect("the session for reads lives").in_recovery,
        "on the primary now"
    );
    assert!(
        !spread(replicas).await.contains_key(&second.address().to_string()),
        "readers leave the primary alone"
    );
}

/// Each new client was served, by a replica.
fn none_fails(fault: &str, seen: &Seen) {
    println!(
        "{fault}: {} connected, longest wait {:?}",
        seen.connected, seen.longest_wait
    );
    assert!(
        seen.connected > 0 && seen.failed.is_empty() && seen.on_a_primary == 0,
        "{fault}: {seen:?}"
    );
}

async fn write_40_mb(leader: &Member) {
    let write =
        "select count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) from generate_series(1, 40)";
    leader.psql(write).await.expect("write more than the limit");
}

#[tokio::test]
async fn sessions_follow_the_synchronous_standby_by_etcd() {
    sessions_follow_the_standby(Dcs::Etcd).await;
}

#[tokio::test]
async fn sessions_follow_the_synchronous_standby_by_configmaps() {
    sessions_follow_the_standby(Dcs::ConfigMaps).await;
}

/// The synchronous standby moves: its sessions end on `sync`, and stay on `async`. With a quorum, both replicas belong to
/// it.
async fn sessions_follow_the_standby(dcs: Dcs) {
    let settings = Settings {
        synchronous: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(dcs, settings).await;
    let flags = ["sync", "async", "quorum"].map(|kind| format!("--route=127.0.0.1:0={kind}"));
    let flags = flags.each_ref().map(String::as_str);
    let product = match dcs {
        Dcs::Etcd => Product::start_on_etcd(&rig, &flags).await,
        _ => Product::start(&rig, &flags, &[]).await,
    };
    let [sync, not_sync] = addresses(&product).await;
    let former = report::with_role(&rig, "sync_standby").await;
    let latter = report::with_role(&rig, "replica").await;
    treats(&product, 1, former, "fit").await;
    treats(&product, 2, latter, "fit").await;
    let on_former = session_on(sync, former).await;
    let on_latter = session_on(not_sync, latter).await;
    let changed = report::move_standby(&rig).await;
    wait_until("the session on the former standby ends", SOON, async || {
        on_former.is_closed().then_some(())
    })
    .await;
    println!(
        "the session on the former standby ended within {:?} of Patroni's change",
        changed.elapsed()
    );
    treats(&product, 1, latter, "fit").await;
    treats(&product, 2, former, "fit").await;
    session_on(sync, latter).await;
    session_on(not_sync, former).await;
    assert!(
        ask(&on_latter)
            .await
            .expect("the session on the latter stays")
            .in_recovery
    );

    rig.configure(&json!({"synchronous_mode": "quorum"})).await;
    treats(&product, 3, former, "fit").await;
    treats(&product, 3, latter, "fit").await;
}

/// Opens a session that is on this member.
async fn session_on(address: SocketAddr, member: &Member) -> Client {
    let there = member.address().to_string();
    let mut others = Vec::new();
    wait_until("a session on that member", SOON, async || {
        let client = session(address).await.expect("a session");
        let is_there = ask(&client).await.expect("an answer").server == there;
        if is_there {
            Some(client)
        } else {
            others.push(client);
            None
        }
    })
    .await
}

/// Opens nine sessions, and counts them by server.
async fn spread(address: SocketAddr) -> BTreeMap<String, usize> {
    let mut open = Vec::new();
    let mut found = BTreeMap::new();
    for _ in 0..9 {
        let client = session(address).await.expect("a session");
        *found.entry(ask(&client).await.expect("an answer").server).or_default() += 1;
        open.push(client);
    }
    found
}

fn both<'a>(mut members: impl Iterator<Item = &'a Member>) -> [&'a Member; 2] {
    [members.next().expect("a replica"), members.next().expect("another one")]
}

/// Returns PostgreSQL's process that replays the WAL.
fn startup_process(member: &Member) -> Pid {
    let postmaster = member.postmaster().expect("PostgreSQL runs").to_string();
    let processes = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().into_string().ok()?.parse::<i32>().ok());
    let startup = numbers.find(|pid| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        // proc(5): the parent is the second field after the name in parentheses.
        let stat = read("stat");
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned));
        parent.as_ref() == Some(&postmaster) && read("cmdline").contains("startup")
    });
    startup.and_then(Pid::from_raw).expect("the startup process")
}

async fn routes(product: &Product) -> Value {
    product.admin_get("/status").await.json()["routes"].clone()
}

async fn addresses(product: &Product) -> [SocketAddr; 2] {
    let routes = routes(product).await;
    [1, 2].map(|place: usize| {
        routes[place]["address"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("an address")
    })
}

async fn treatment(product: &Product, route: usize, member: &Member) -> String {
    let members = routes(product).await[route]["members"].clone();
    let mut members = members.as_array().expect("members").iter();
    let found = members.find(|found| found["name"] == member.name());
    found.map_or_else(String::new, |found| {
        found["treatment"].as_str().expect("a text").to_owned()
    })
}

async fn treats(product: &Product, route: usize, member: &Member, expected: &str) {
    wait_until(&format!("{} is {expected}", member.name()), FAILOVER, async || {
        (treatment(product, route, member).await == expected).then_some(())
    })
    .await;
}
