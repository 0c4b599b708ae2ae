//! Readers on real replicas: a route with a lag limit through a crash, a paused replay, a REST API that hangs, and a
//! promotion. Clients check at every query whether their server is in recovery.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{Dcs, Member, Product, Rig, session, wait_until};

const SOON: Duration = Duration::from_secs(10);
const FAILOVER: Duration = Duration::from_secs(60);
const READERS: usize = 4;

/// What the readers have seen.
#[derive(Debug, Default)]
struct Seen {
    connected: usize,
    /// Connections that failed before they were ready.
    refused: Vec<String>,
    /// Queries that a server answered which is not in recovery.
    on_a_primary: usize,
}

/// Clients that connect, ask one question and disconnect, all the time.
struct Readers {
    stop: CancellationToken,
    tasks: JoinSet<Seen>,
}

impl Readers {
    fn start(address: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..READERS {
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut seen = Seen::default();
                while !stop.is_cancelled() {
                    match session(address).await {
                        Ok(client) => {
                            seen.connected += 1;
                            if let Ok((false, _)) = server(&client).await {
                                seen.on_a_primary += 1;
                            }
                        }
                        Err(error) => seen.refused.push(format!("{error:?}")),
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                seen
            });
        }
        Self { stop, tasks }
    }

    async fn finish(mut self) -> Seen {
        self.stop.cancel();
        let mut all = Seen::default();
        while let Some(one) = self.tasks.join_next().await {
            let one = one.expect("a reader panicked");
            all.connected += one.connected;
            all.refused.extend(one.refused);
            all.on_a_primary += one.on_a_primary;
        }
        all
    }
}

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
    let readers = Readers::start(replicas);
    first.kill_host();
    sleep(Duration::from_secs(3)).await;
    first.start();
    let seen = readers.finish().await;
    println!(
        "crash of a replica: {} connected, refused: {:?}",
        seen.connected, seen.refused
    );
    assert_eq!((seen.refused.len(), seen.on_a_primary), (0, 0), "{seen:?}");
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
    let write =
        "select count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) from generate_series(1, 40)";
    leader.psql(write).await.expect("write more than the limit");
    let began = Instant::now();
    treats(product, 1, second, "closed").await;
    println!("paused replay: closed after {:?}", began.elapsed());
    assert_eq!(
        spread(replicas).await.keys().collect::<Vec<_>>(),
        [&first.ip().to_string()]
    );
    assert!(server(&on_second).await.expect("the session lives").0);
    kill_process(startup, Signal::CONT).expect("resume the replay");
    treats(product, 1, second, "fit").await;

    // A REST API that hangs for less than 15 s takes nobody out.
    second.freeze_patroni();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(6) {
        assert_eq!(treatment(product, 1, second).await, "fit");
        server(&on_second).await.expect("the session lives");
        sleep(Duration::from_millis(500)).await;
    }
    second.thaw_patroni();
    rig.wait_until_whole(FAILOVER).await;

    // A promotion ends the sessions of the route to replicas, and keeps those of the route for reads.
    let for_reads = session_on(reads, second).await;
    let readers = Readers::start(replicas);
    rig.switchover(Some(second.name())).await;
    treats(product, 1, second, "out").await;
    wait_until("the session on the promoted replica ends", SOON, async || {
        on_second.is_closed().then_some(())
    })
    .await;
    let seen = readers.finish().await;
    println!(
        "promotion: {} connected, {} on a primary, refused: {:?}",
        seen.connected, seen.on_a_primary, seen.refused
    );
    assert_eq!(seen.refused.len(), 0, "{seen:?}");
    assert!(
        !server(&for_reads).await.expect("the session for reads lives").0,
        "on the primary now"
    );
    assert!(
        !spread(replicas).await.contains_key(&second.ip().to_string()),
        "readers leave the primary alone"
    );
}

/// Returns whether the session's server is in recovery, and its address.
async fn server(client: &Client) -> Result<(bool, String), tokio_postgres::Error> {
    let row = client
        .query_one("select pg_is_in_recovery(), host(inet_server_addr())", &[])
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// Opens a session that is on this member.
async fn session_on(address: SocketAddr, member: &Member) -> Client {
    let ip = member.ip().to_string();
    let mut others = Vec::new();
    wait_until("a session on that member", SOON, async || {
        let client = session(address).await.expect("a session");
        let is_there = server(&client).await.expect("an answer").1 == ip;
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
        *found.entry(server(&client).await.expect("an answer").1).or_default() += 1;
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
