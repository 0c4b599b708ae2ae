//! `pgnorth watch --haproxy` beside a real HAProxy with Patroni's template, through a switchover, a crash and a REST API
//! that hangs. It prints the line for each. Some two minutes: `make test-haproxy`.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::rest_hangs::occupy;
use crate::support::http::Request;
use crate::support::process::Process;
use crate::support::rig::SCOPE;
use crate::support::wait::wait_until;
use crate::support::{Dcs, Rig, session};

const SOON: Duration = Duration::from_secs(60);
/// A dead host costs ttl and a few seconds; HAProxy's report may last a minute more.
const LONG: Duration = Duration::from_secs(150);
const HAPROXY: &str = "127.0.0.1:5000";

/// Starts HAProxy as Patroni's own template has it (`extras/confd/templates/haproxy.tmpl`).
fn start_haproxy(rig: &Rig) -> Process {
    let servers: String = (rig.members().iter())
        .map(|member| format!("    server {} {} check port 8008\n", member.name(), member.address()))
        .collect();
    let folder = rig.folder().display();
    let config = format!(
        "global\n    maxconn 100\n    stats socket {folder}/haproxy.sock\n\
         defaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
         timeout server 30m\n    timeout check 5s\n\
         listen primary\n    bind {HAPROXY}\n    option httpchk OPTIONS /primary\n    http-check expect status 200\n    \
         default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n{servers}"
    );
    let file = rig.folder().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(&file);
    Process::start("haproxy", command, &rig.folder().join("haproxy.log"))
}

fn start_watcher(rig: &Rig) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.args(["watch", "--scope", SCOPE, "--etcd", &rig.etcd().urls()]);
    command.args(["--admin", "127.0.0.1:0", "--log-format", "json", "--haproxy"]);
    command.arg(format!("unix:{}", rig.folder().join("haproxy.sock").display()));
    Process::start("watch", command, &rig.folder().join("watch.log"))
}

/// Returns the log lines so far.
fn lines(watcher: &Process) -> Vec<Value> {
    let log = watcher.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns the sentences of the reports so far. HAProxy's own start is one: its servers count as up until they are checked.
fn reports(watcher: &Process) -> Vec<String> {
    let messages = lines(watcher).into_iter();
    let messages = messages.map(|line| line["fields"]["message"].as_str().unwrap_or_default().to_owned());
    let of_haproxy = |message: &String| {
        let beginnings = ["HAProxy had", "HAProxy was", "HAProxy refused"];
        beginnings.iter().any(|beginning| message.contains(beginning))
    };
    messages.filter(of_haproxy).collect()
}

/// Waits for one more report than there were, and returns it.
async fn next_report(watcher: &Process, before: usize) -> String {
    let report = wait_until("a report", LONG, async || reports(watcher).get(before).cloned()).await;
    println!("{report}");
    report
}

#[tokio::test]
#[ignore = "some two minutes: make test-haproxy"]
async fn a_switchover_a_crash_and_a_hang_are_reported() {
    let rig = Rig::start(Dcs::Etcd).await;
    let _haproxy = start_haproxy(&rig);
    let watcher = start_watcher(&rig);
    let admin: SocketAddr = wait_until("the watcher listens", SOON, async || {
        let line = lines(&watcher)
            .into_iter()
            .find(|line| line["fields"]["message"] == "listening")?;
        line["fields"]["admin"].as_str()?.parse().ok()
    })
    .await;
    let agrees = async || {
        let url = format!("http://{admin}/metrics");
        wait_until("HAProxy agrees", SOON, async || {
            let metrics = rig.http().ask(&Request::get(&url)).await.ok()?.body;
            metrics.contains("\npgnorth_haproxy_agrees 1\n").then_some(())
        })
        .await;
    };
    let haproxy = HAPROXY.parse().unwrap();

    rig.wait_until_whole(SOON).await;
    agrees().await;
    let open = [session(haproxy).await.unwrap(), session(haproxy).await.unwrap()];
    let before = reports(&watcher).len();
    rig.switchover(None).await;
    let report = next_report(&watcher, before).await;
    assert!(
        report.contains("change of leader, compared with HAProxy: HAProxy ") && report.contains("refused nobody"),
        "{report}"
    );
    drop(open);

    rig.wait_until_whole(SOON).await;
    agrees().await;
    let (leader, before) = (rig.leader().await, reports(&watcher).len());
    leader.kill_host();
    let report = next_report(&watcher, before).await;
    assert!(
        report.contains("change of leader, compared with HAProxy: HAProxy "),
        "{report}"
    );
    leader.start();

    rig.wait_until_whole(SOON).await;
    agrees().await;
    let (busy, before) = (occupy(rig.leader().await), reports(&watcher).len());
    let url = format!("http://{admin}/metrics");
    wait_until("HAProxy has no server up", SOON, async || {
        let metrics = rig.http().ask(&Request::get(&url)).await.ok()?.body;
        metrics.contains("\npgnorth_haproxy_agrees 0\n").then_some(())
    })
    .await;
    drop(busy);
    let report = next_report(&watcher, before).await;
    assert!(
        report.contains("refused clients for ") && report.contains("leader stayed"),
        "{report}"
    );
}
