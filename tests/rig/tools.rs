//! PostgreSQL's own tools in the middle of a switchover: each says that it failed, and works again at once. Prints rows of
//! the table in `docs/operating/clients.md`.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::psql::PASSWORD;
use crate::support::{Dcs, Product, Rig, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(60);
/// A deadline against hanging.
const END: Duration = Duration::from_secs(150);

/// The tools: name, a command that lasts for minutes, and one that ends soon. `@` is a folder.
const TOOLS: [(&str, &str, &str); 4] = [
    (
        "pg_dump",
        "pg_dump --table=big | python3 -c 'import sys, time\nwhile sys.stdin.buffer.read(65536): time.sleep(0.1)'",
        "pg_dump --table=big >/dev/null",
    ),
    (
        "pg_basebackup",
        "pg_basebackup --checkpoint=fast --max-rate=256 --pgdata=@/slow",
        "pg_basebackup --checkpoint=fast --pgdata=@/whole",
    ),
    (
        "pgbench",
        "pgbench --no-vacuum --client=4 --time=600",
        "pgbench --no-vacuum --client=4 --transactions=10",
    ),
    (
        "pgbench --connect",
        "pgbench --no-vacuum --connect --client=4 --time=30",
        "pgbench --no-vacuum --connect --client=4 --transactions=10",
    ),
];

#[tokio::test]
#[ignore = "a part of the clients' table: make test-clients"]
async fn tools_fail_in_a_switchover_and_work_again_at_once() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start_on_etcd(&rig, &["--hold", "60s"]).await;
    product.wait_until_writable(SOON).await;
    let shell = |name: &str, command: &str| {
        let command = command.replace('@', &rig.folder().display().to_string());
        let mut child = Command::new("bash");
        child.args(["-o", "pipefail", "-c", &command]);
        child.envs([
            ("PGHOST", "127.0.0.1"),
            ("PGUSER", "postgres"),
            ("PGPASSWORD", PASSWORD),
        ]);
        child.env("PGPORT", product.address().port().to_string());
        child.env("PGDATABASE", "postgres").env("PGAPPNAME", name);
        child
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        child.spawn().expect("start bash")
    };
    let table = "create table big as select n, repeat('x', 500) from generate_series(1, 100000) n";
    let old = rig.leader().await;
    old.psql(table).await.expect("make the table");
    let made = ended("pgbench", shell("make", "pgbench --initialize --quiet")).await;
    assert!(made.status.success(), "{made:?}");

    let under_way: Vec<_> = TOOLS
        .iter()
        .map(|(name, lasting, _)| (*name, shell(name, lasting)))
        .collect();
    wait_until("every tool is at work", SOON, async || {
        let sql = "select count(distinct application_name) from pg_stat_activity where application_name like 'pg%'";
        (old.psql(sql).await.ok()? == TOOLS.len().to_string()).then_some(())
    })
    .await;
    rig.switchover(None).await;
    rig.wait_for_new_leader(old, FAILOVER).await;
    for (name, child) in under_way {
        let output = ended(name, child).await;
        assert!(
            !output.status.success(),
            "{name} does not say that it failed: {output:?}"
        );
        println!("| {name} | {} | {} |", code(&output), messages(&output));
    }
    for (name, _, short) in TOOLS {
        let output = ended(name, shell(name, short)).await;
        assert!(output.status.success(), "{name}, after the switchover: {output:?}");
    }
}

async fn ended(name: &str, child: Child) -> Output {
    let output = timeout(END, child.wait_with_output()).await;
    output
        .unwrap_or_else(|_| panic!("{name} does not end"))
        .expect("its output")
}

fn code(output: &Output) -> String {
    output
        .status
        .code()
        .map_or_else(|| "a signal".to_owned(), |code| code.to_string())
}

/// Returns the distinct messages on standard error. Each client of pgbench has the server's message after its number.
fn messages(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut all: Vec<_> = text
        .lines()
        .filter(|line| line.contains("error") || line.contains("FATAL"))
        .map(|line| line.find("FATAL").map_or(line, |at| &line[at..]))
        .collect();
    all.dedup();
    all.join("; ")
}
