//! `pgnorth watch --haproxy` compares HAProxy with pgnorth: a real HAProxy with the checks of Patroni's template, and
//! fake statistics for what a real one does not do on demand.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};

use crate::fake_cluster::{FakeCluster, Product, Session, eventually};
use crate::fake_patroni::{Answer, FakeMember};
use crate::support::within;

/// A running HAProxy. Its drop kills it.
struct Haproxy(Child);

impl Haproxy {
    /// Starts it in this folder, with sockets `admin` and `clients`. The servers are not named as the members are. Its
    /// checks are the template's, but faster.
    fn start(folder: &Path, cluster: &FakeCluster) -> Self {
        let server = |name: &str, member: &FakeMember| {
            format!(
                "    server {name} {} check port {}\n",
                member.postgres,
                member.rest.port()
            )
        };
        let config = format!(
            "global\n    maxconn 100\n    stats socket {folder}/admin level operator\n\
             defaults\n    mode tcp\n    timeout client 30m\n    timeout connect 4s\n    timeout server 30m\n\
             listen primary\n    bind unix@{folder}/clients\n    option httpchk OPTIONS /primary\n    \
             http-check expect status 200\n    \
             default-server inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions\n{}{}",
            server("pg1", &cluster.a),
            server("pg2", &cluster.b),
            folder = folder.display()
        );
        Self::start_with(folder, &config)
    }

    /// Starts one in front of pgnorth, which sends a header of the PROXY protocol's version 2. Returns its address, too.
    fn start_in_front_of(folder: &Path, pgnorth: &Product) -> (Self, SocketAddr) {
        // HAProxy does not tell which port it was given. Nothing else uses this address.
        let free = TcpListener::bind("127.93.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let config = format!(
            "defaults\n    mode tcp\n    timeout client 30m\n    timeout connect 4s\n    timeout server 30m\n\
             listen clients\n    bind {address}\n    server pgnorth {} send-proxy-v2\n",
            pgnorth.address
        );
        (Self::start_with(folder, &config), address)
    }

    fn start_with(folder: &Path, config: &str) -> Self {
        std::fs::write(folder.join("cfg"), config).unwrap();
        let log = File::create(folder.join("haproxy.log")).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(folder.join("cfg"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self(child.expect("haproxy is installed"))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Waits until a metric without labels has this value.
async fn shows(watcher: &Product, metric: &str, value: &str) {
    let line = format!("\n{metric} {value}\n");
    eventually(&format!("{metric} is {value}"), async || {
        watcher.page("/metrics").await.1.contains(&line).then_some(())
    })
    .await;
}

/// Returns statistics in which this member is up, or none is.
fn fake_statistics(up: &str) -> String {
    let rows = ["a", "b"].map(|name| {
        let status = if name == up { "UP" } else { "DOWN" };
        format!("primary,{name},0,{status},2,\n")
    });
    format!("# pxname,svname,scur,status,type,\n{}\n", rows.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_haproxy_that_follows_late_is_reported_with_the_session_that_stayed() {
    let cluster = FakeCluster::start(20).await;
    let folder = TempDir::new().unwrap();
    let source = format!("unix:{}", folder.path().join("admin").display());
    let watcher = Product::start_watcher(&cluster, &["--haproxy", &source]).await;
    watcher.tells("WARN", &["cannot compare with HAProxy", "admin"]).await;
    let _haproxy = Haproxy::start(folder.path(), &cluster);
    watcher.tells("INFO", &["can be used again"]).await;
    shows(&watcher, "pgnorth_haproxy_agrees", "1").await;

    let mut session = UnixStream::connect(folder.path().join("clients")).await.unwrap();
    session.write_all(b"?").await.unwrap();
    assert_eq!(within("a answers", session.read_u8()).await.unwrap(), b'a');
    // a does not know yet, and still reports that it leads: HAProxy has both up.
    cluster.lock_moves_to("b");
    cluster.b.is_primary(2);
    watcher.decides("route", Some("b"), "").await;
    shows(&watcher, "pgnorth_haproxy_stale_sessions", "1").await;
    shows(&watcher, "pgnorth_haproxy_agrees", "0").await;
    cluster.a.is_replica(2);
    within("HAProxy closes it", session.read_u8()).await.unwrap_err();

    let report = eventually("the report is in the record", async || {
        let failovers: Value = serde_json::from_str(&watcher.page("/failovers").await.1).unwrap();
        let report = failovers[0]["haproxy"].clone();
        (!report.is_null()).then_some(report)
    })
    .await;
    assert!(report["wrong_seconds"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(
        (&report["stale_sessions"], &report["settled"]),
        (&1.into(), &true.into())
    );
    let summary = report["summary"].as_str().unwrap();
    for part in [
        "HAProxy had a wrong server up for ",
        "; 1 session stayed on a former primary for ",
        "and refused nobody",
    ] {
        assert!(summary.contains(part), "{summary}");
    }
    watcher
        .tells(
            "INFO",
            &["change of leader, compared with HAProxy: HAProxy had a wrong server up for "],
        )
        .await;
    shows(&watcher, "pgnorth_haproxy_agrees", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_alarm_of_haproxy_is_one_line_and_no_change() {
    let cluster = FakeCluster::start(20).await;
    let haproxy = FakeMember::start("haproxy").await;
    haproxy.answers(Answer::Body(fake_statistics("a")));
    let url = format!("http://{}/", haproxy.rest);
    let watcher = Product::start_watcher(&cluster, &["--haproxy", &url]).await;
    shows(&watcher, "pgnorth_haproxy_agrees", "1").await;
    haproxy.answers(Answer::Body(fake_statistics("none")));
    shows(&watcher, "pgnorth_haproxy_agrees", "0").await;
    // Neither a hang nor another page is evidence about HAProxy or the cluster.
    haproxy.answers(Answer::Nothing);
    watcher
        .tells("WARN", &["cannot compare with HAProxy", "no answer within 1 s"])
        .await;
    shows(&watcher, "pgnorth_haproxy_readable", "0").await;
    haproxy.answers(Answer::Body(fake_statistics("a")));
    let words = [
        "HAProxy refused clients for ",
        "could not be used",
        "pgnorth's leader stayed",
    ];
    watcher.tells("INFO", &words).await;
    assert_eq!(watcher.page("/failovers").await.1.trim(), "[]");
    assert_eq!(watcher.log().matches("HAProxy refused").count(), 1);
    assert!(!watcher.log().contains("wrong server up"), "{}", watcher.log());
    watcher.decides("route", Some("a"), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_in_a_file_count_while_it_is_written() {
    let cluster = FakeCluster::start(20).await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("stats.csv");
    std::fs::write(&file, fake_statistics("a")).unwrap();
    let watcher = Product::start_watcher(&cluster, &["--haproxy", file.to_str().unwrap()]).await;
    eventually("it agrees", async || {
        std::fs::write(&file, fake_statistics("a")).unwrap();
        let (_, metrics) = watcher.page("/metrics").await;
        metrics.contains("\npgnorth_haproxy_agrees 1\n").then_some(())
    })
    .await;
    watcher
        .tells("WARN", &["stats.csv was last written ", "write it every second"])
        .await;
}

/// The address is the client's own, not that of HAProxy.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_real_haproxy_the_log_has_the_clients_own_address() {
    let cluster = FakeCluster::start(20).await;
    let flags = [
        "--proxy-protocol-from",
        "127.0.0.1",
        "--log",
        "info,pgnorth::proxy=debug",
    ];
    let product = Product::start(&cluster, &flags).await;
    product.decides("route", Some("a"), "").await;
    let folder = TempDir::new().unwrap();
    let (_haproxy, address) = Haproxy::start_in_front_of(folder.path(), &product);
    let client = eventually("HAProxy listens", async || {
        let client = TcpSocket::new_v4().unwrap();
        client.bind("127.94.0.7:0".parse().unwrap()).unwrap();
        client.connect(address).await.ok()
    });
    let mut client = client.await;
    let own = client.local_addr().unwrap().to_string();
    client.write_all(b"?").await.unwrap();
    let mut session = Session::of(client).await;
    assert_eq!(session.member, "a");
    session.lives().await;
    let begins = |event: &Value| {
        let fields = &event["fields"];
        fields["message"] == "session begins" && fields["peer"] == own.as_str()
    };
    product.logs(&format!("a session of {own}"), begins).await;
}
