//! PgBouncer beside each PostgreSQL, and sessions that go to it: its failures are never taken for the leader's. A route
//! with a target of its own leads to PostgreSQL meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::{Process, run};
use crate::support::psql::{PASSWORD, psql_with};
use crate::support::{Dcs, Member, Product, Rig, Settings, session, wait_until};

const SOON: Duration = Duration::from_secs(20);
const FAILOVER: Duration = Duration::from_secs(60);
const PORT: u16 = 6432;

#[tokio::test]
async fn a_pooler_that_is_down_or_paused_is_no_failure_of_its_leader() {
    let settings = Settings {
        pooler_port: Some(PORT),
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Etcd, settings).await;
    let mut poolers: BTreeMap<&str, Process> = rig
        .members()
        .iter()
        .map(|member| (member.name(), pgbouncer(&rig, member)))
        .collect();
    let flags = ["--target", "proxy", "--route", "127.0.0.1:0=primary,target=postgres"];
    let product = Product::start_on_etcd(&rig, &flags).await;
    product.wait_until_writable(SOON).await;
    let status: Value = product.admin_get("/status").await.json();
    let direct: SocketAddr = status["routes"][1]["address"].as_str().unwrap().parse().unwrap();
    let first = rig.member(0);
    assert_eq!(
        leader(&product).await,
        (first.name().to_owned(), format!("{}:{PORT}", first.ip()))
    );

    // A switchover: sessions move from one pooler to another.
    let (old, old_direct) = (
        session(product.address()).await.unwrap(),
        session(direct).await.unwrap(),
    );
    rig.switchover(Some("patronidemo-1")).await;
    let second = rig.wait_for_new_leader(first, FAILOVER).await;
    assert_eq!(product.wait_until_writable(FAILOVER).await, second.ip().to_string());
    assert!(
        old.simple_query("select 1").await.is_err(),
        "the old pooler still runs, but its member no longer leads"
    );
    assert!(old_direct.simple_query("select 1").await.is_err());
    let served_by = psql_with(direct, "select host(inet_server_addr())", &[]).await;
    assert_eq!(served_by, Ok(second.ip().to_string()));
    let at_second = (second.name().to_owned(), format!("{}:{PORT}", second.ip()));
    assert_eq!(leader(&product).await, at_second);
    let epochs = product.metric("pgnorth_leader_changes_total", &[]).await;

    // The pooler is killed: clients wait for it, and its member stays the leader.
    poolers.get_mut(second.name()).unwrap().kill();
    let address = product.address();
    let waiting =
        tokio::spawn(async move { psql_with(address, "select 'served'", &[("PGCONNECT_TIMEOUT", "60")]).await });
    let message = "the leader's pooler could not be reached";
    wait_until("the log names the pooler", SOON, async || {
        product.log().contains(message).then_some(())
    })
    .await;
    let labels = [("route", "primary"), ("target", "proxy")];
    let failures = product.metric("pgnorth_pooler_failures_total", &labels).await.unwrap();
    assert!(failures > 0.0);
    let past_the_pooler = psql_with(direct, "select 'served'", &[]).await;
    assert_eq!(past_the_pooler.as_deref(), Ok("served"));
    assert_eq!(leader(&product).await, at_second);
    poolers.insert(second.name(), pgbouncer(&rig, second));
    assert_eq!(waiting.await.unwrap().as_deref(), Ok("served"));

    // The pooler is paused: clients wait in it.
    let open = session(address).await.unwrap();
    console(second, "PAUSE");
    let waiting = tokio::spawn(async move { open.simple_query("select 'served'").await.map(|rows| rows.len()) });
    wait_until("the client waits in the pooler", SOON, async || {
        let pools = console(second, "SHOW POOLS");
        // database|user|cl_active|cl_waiting|…
        pools
            .lines()
            .any(|pool| pool.starts_with("postgres|") && pool.split('|').nth(3) != Some("0"))
            .then_some(())
    })
    .await;
    assert_eq!(leader(&product).await, at_second);
    console(second, "RESUME");
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(
        product.metric("pgnorth_leader_changes_total", &[]).await,
        epochs,
        "the leader has not changed"
    );
}

/// Returns the name and the address of the leader that pgnorth routes to.
async fn leader(product: &Product) -> (String, String) {
    let leader: Value = product.admin_get("/leader").await.json();
    let text = |field: &str| leader[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("state"), "route", "{leader}");
    (text("member"), text("address"))
}

/// Starts PgBouncer on the host of a member, in front of its PostgreSQL.
fn pgbouncer(rig: &Rig, member: &Member) -> Process {
    let folder = rig.folder().join(format!("pgbouncer-{}", member.name()));
    fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name);
    let (ip, users) = (member.ip(), file("users"));
    fs::write(&users, format!("\"postgres\" \"{PASSWORD}\"\n")).unwrap();
    let configuration = format!(
        "[databases]\n* = host={ip} port={}\n\
         [pgbouncer]\nlisten_addr = {ip}\nlisten_port = {PORT}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
         auth_file = {}\nadmin_users = postgres\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n",
        member.address().port(),
        users.display(),
    );
    fs::write(file("pgbouncer.ini"), configuration).unwrap();
    run("chown", &["-R", "postgres:", folder.to_str().unwrap()]);
    let mut command = member.command("pgbouncer");
    command.arg(file("pgbouncer.ini"));
    Process::start("pgbouncer", command, &file("log"))
}

/// Runs a command in PgBouncer's console.
fn console(member: &Member, command: &str) -> String {
    let address = format!(
        "host={} port={PORT} user=postgres dbname=pgbouncer password={PASSWORD}",
        member.ip()
    );
    run(
        "psql",
        &[
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--command",
            command,
            &address,
        ],
    )
}
