//! Real drivers with their pools insert rows through pgnorth, through switchovers and crashes of the primary's host.
//! Prints the table of `docs/operating/clients.md`, and checks that no acknowledged row is lost, that none is there
//! twice, and that no client is logged in twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::rig::cache;
use crate::support::{Dcs, Member, Product, Rig, Settings, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(180);
/// A client may wait for a connection for this long before it sees that it has to end.
const END: Duration = Duration::from_secs(150);
/// Time between two faults. Every client inserts, so every connection that broke is found.
const BETWEEN: Duration = Duration::from_secs(4);

/// The clients: name, whether it has settings for safe failovers, and its command below `tests/drivers/pools` (`@`) or
/// the folder of `run.sh` (`%`).
#[rustfmt::skip]
const CLIENTS: [(&str, bool, &[&str]); 12] = [
    ("libpq",        false, &["%venv/bin/python", "@libpq_client.py"]),
    ("libpq-hosts",  false, &["%venv/bin/python", "@libpq_client.py"]),
    ("psycopg_pool", true,  &["%venv/bin/python", "@psycopg_pool_client.py"]),
    ("sqlalchemy",   true,  &["%venv/bin/python", "@sqlalchemy_client.py"]),
    ("django",       true,  &["%venv/bin/python", "@django_client.py"]),
    ("asyncpg",      true,  &["%venv/bin/python", "@asyncpg_client.py"]),
    ("node-pg",      false, &["node", "%node_pg_pool.mjs"]),
    ("hikari",       true,  &["java", "-cp", HIKARI, "Hikari"]),
    ("pgx",          false, &["%sql", "pgx"]),
    ("lib-pq",       false, &["%sql", "pq"]),
    ("deadpool",     true,  &["%deadpool-client"]),
    ("pgbouncer",    true,  &["%venv/bin/python", "@pgbouncer_client.py"]),
];
const HIKARI: &str = "%java:/usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar:/usr/share/java/slf4j-api.jar:\
                      /usr/share/java/slf4j-nop.jar";

#[tokio::test]
#[ignore = "takes some ten minutes: make test-clients"]
async fn drivers_live_through_failovers() {
    let (switchovers, crashes) = (number("PGNORTH_SWITCHOVERS", 20), number("PGNORTH_CRASHES", 5));
    let rig = Rig::start_with(Dcs::Etcd, settings()).await;
    let pair = [
        Product::start_on_etcd(&rig, &["--hold", "60s"]).await,
        Product::start_on_etcd(&rig, &["--hold", "60s"]).await,
    ];
    for product in &pair {
        product.wait_until_writable(SOON).await;
    }
    let table = "create table driven (id bigserial primary key, client text not null)";
    rig.leader().await.psql(table).await.expect("make the table");
    for kind in ["plain", "tls"] {
        let role = format!("create role \"pgbouncer-{kind}\" superuser login password 'rig'");
        rig.leader().await.psql(&role).await.expect("make PgBouncer's role");
    }
    let mut clients = start_clients(&rig, &pair);
    for round in 0..switchovers.max(crashes) {
        if round < switchovers {
            fault(&rig, &mut clients, async |_: &Member| rig.switchover(None).await).await;
        }
        if round < crashes {
            fault(&rig, &mut clients, async |old: &Member| old.kill_host()).await;
        }
        eprintln!("round {round} is over");
    }
    println!("| client | settings | errors | longest wait | rows | logins: client, server |\n|--|--|--|--|--|--|");
    let mut wrong = Vec::new();
    for client in clients {
        wrong.extend(client.finish(&rig).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A driver's program.
struct Client {
    name: String,
    child: Child,
    many_hosts: bool,
}

/// Starts each client with its pool's own settings in plaintext, and with those for failovers and TLS.
fn start_clients(rig: &Rig, pair: &[Product; 2]) -> Vec<Client> {
    let mut clients = Vec::new();
    for (name, has_settings, command) in CLIENTS {
        for tls in [false, true] {
            let mut child = program(command);
            let many_hosts = name == "libpq-hosts";
            let ports = pair.each_ref().map(|product| product.address().port().to_string());
            let (hosts, ports) = match many_hosts {
                true => ("127.0.0.1,127.0.0.1", ports.join(",")),
                false => ("127.0.0.1", ports[usize::from(tls)].clone()),
            };
            let safe = if tls && has_settings { "yes" } else { "no" };
            let name = format!("{name}-{}", if tls { "tls" } else { "plain" });
            child.envs([
                ("CLIENT_NAME", name.as_str()),
                ("CLIENT_HOSTS", hosts),
                ("CLIENT_SAFE", safe),
            ]);
            child.env("CLIENT_PORTS", ports).env("PYTHONDONTWRITEBYTECODE", "1");
            if tls {
                child.env("CLIENT_CA", rig.authority());
            }
            child.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let child = child.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
            clients.push(Client {
                name,
                child,
                many_hosts,
            });
        }
    }
    clients
}

fn program(command: &[&str]) -> Command {
    let part = |part: &str| {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/pools/");
        part.replace('%', &format!("{}/", work().display()))
            .replace('@', scripts)
    };
    let mut child = Command::new(part(command[0]));
    child.args(command[1..].iter().map(|argument| part(argument)));
    child
}

/// Applies a fault that moves the primary. Before it, and after it, every client inserts.
async fn fault<'a>(rig: &'a Rig, clients: &mut [Client], strike: impl AsyncFn(&'a Member)) {
    for client in clients.iter_mut() {
        let ended = client.child.try_wait().expect("ask for the client");
        assert!(ended.is_none(), "{} ended: {ended:?}", client.name);
    }
    wait_for_a_synchronous_standby(rig).await;
    every_client_inserts(rig, clients).await;
    let old = rig.leader().await;
    strike(old).await;
    rig.wait_for_new_leader(old, FAILOVER).await;
    if old.process_count() == 0 {
        old.start();
    }
    rig.wait_until_whole(WHOLE).await;
    sleep(BETWEEN).await;
}

async fn every_client_inserts(rig: &Rig, clients: &[Client]) {
    let (mut before, mut idle_before) = (None, Vec::new());
    wait_until("every client inserts", WHOLE, async || {
        let rows = rows(rig.find_leader().await?).await?;
        let before = before.get_or_insert_with(|| rows.clone());
        let idle = |client: &&Client| rows.get(&client.name) <= before.get(&client.name);
        let now: Vec<_> = clients.iter().filter(idle).map(|client| client.name.as_str()).collect();
        if now != idle_before {
            eprintln!("no row yet of {now:?}");
            idle_before = now.clone();
        }
        now.is_empty().then_some(())
    })
    .await;
}

/// Returns the number of rows of each client.
async fn rows(leader: &Member) -> Option<BTreeMap<String, u64>> {
    let text = leader
        .psql("select client, count(*) from driven group by client")
        .await
        .ok()?;
    let row = |line: &str| {
        let (client, count) = line.rsplit_once('|')?;
        Some((client.to_owned(), count.parse().ok()?))
    };
    text.lines().map(row).collect()
}

impl Client {
    /// Ends the client, prints its row of the table, and returns what is wrong.
    async fn finish(mut self, rig: &Rig) -> Vec<String> {
        drop(self.child.stdin.take());
        let mut output = String::new();
        let mut stdout = self.child.stdout.take().expect("piped");
        let read = timeout(END, stdout.read_to_string(&mut output)).await;
        read.unwrap_or_else(|_| panic!("{} does not end", self.name))
            .expect("read its account");
        let account: Value =
            serde_json::from_str(&output).unwrap_or_else(|error| panic!("{}: {error}: {output}", self.name));
        let count = |field: &str| account[field].as_u64().expect("a number");
        let errors: BTreeMap<&str, u64> = account["errors"]
            .as_object()
            .expect("errors")
            .iter()
            .map(|(kind, count)| (kind.as_str(), count.as_u64().unwrap_or(0)))
            .collect();
        let there = rows(rig.leader().await)
            .await
            .expect("count rows")
            .remove(&self.name)
            .unwrap_or(0);
        // PgBouncer does not log that a login is complete.
        let completed = account["completed"].as_u64();
        let logins = logins(rig, &self.name);
        let (name, kind) = self.name.rsplit_once('-').expect("a name with its kind");
        let shown: Vec<_> = errors.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        println!(
            "| {name} | {kind} | {} | {:.1} s | {} | {}, {logins} |",
            if shown.is_empty() {
                "none".to_owned()
            } else {
                shown.join("; ")
            },
            account["longest"].as_f64().expect("a number"),
            count("rows"),
            completed.unwrap_or(count("begun")),
        );
        let failed: u64 = errors.values().sum();
        let mut wrong = Vec::new();
        // database/sql repeats a statement that lib/pq has sent, if the connection breaks (lib/pq#939).
        let repeats = name == "lib-pq";
        let most = if repeats { u64::MAX } else { count("rows") + failed };
        if !(count("rows")..=most).contains(&there) {
            wrong.push(format!(
                "{}: {} rows acknowledged, {failed} errors, {there} rows",
                self.name,
                count("rows")
            ));
        }
        // A login may be complete at the server, and its answer lost. With several hosts, libpq then tries the next one.
        let most = if self.many_hosts { u64::MAX } else { count("begun") };
        if !(completed.unwrap_or(0)..=most).contains(&logins) {
            wrong.push(format!(
                "{}: {completed:?} logins of {most} begun, {logins} at the servers",
                self.name
            ));
        }
        wrong
    }
}

/// Returns the number of logins that the members' PostgreSQL logged for a client, by its application_name or its role.
fn logins(rig: &Rig, name: &str) -> u64 {
    let names = [format!("application_name={name}"), format!("user={name}")];
    let is_login = |line: &&str| {
        line.contains("connection authorized") && line.split(' ').any(|word| names.iter().any(|name| name == word))
    };
    let of_one = |member: &Member| member.log().lines().filter(is_login).count() as u64;
    rig.members().iter().map(of_one).sum()
}

async fn wait_for_a_synchronous_standby(rig: &Rig) {
    wait_until("a replica is synchronous", WHOLE, async || {
        let cluster = rig.cluster().await?;
        let mut members = cluster["members"].as_array()?.iter();
        members.any(|member| member["role"] == "sync_standby").then_some(())
    })
    .await;
}

/// Synchronous, so that every acknowledged row has to survive; each login is logged.
fn settings() -> Settings {
    let parameters = json!({"log_connections": "on"});
    Settings {
        synchronous: true,
        failsafe: true,
        dynamic: json!({"postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": parameters}}),
        ..Settings::default()
    }
}

/// Returns the folder into which `run.sh` installed the drivers.
fn work() -> PathBuf {
    Path::new(&cache()).join("drivers")
}

fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        default
    } else {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text:?}"))
    }
}
