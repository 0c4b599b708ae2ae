//! The etcd source against real etcds on loopback; the members behind their keys are fakes.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgnorth::discovery::etcd::Gateway;
use pgnorth::discovery::etcd::messages::WatchMessage;
use pgnorth::discovery::http::Connector;
use pgnorth::discovery::http::tls::TlsFiles;
use pgnorth::leader::BaseUrl;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake_cluster::{Product, eventually};
use crate::fake_patroni::FakeMember;
use crate::support::within;

const PREFIX: &str = "/service/pg/";

/// One or three etcds. They end with the test.
struct Etcds {
    folder: TempDir,
    processes: Vec<Child>,
    clients: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    tls: bool,
    /// User and password of `etcdctl`, once authentication is enabled.
    root: Option<&'static str>,
    keepers: Vec<Child>,
}

/// Members a and b, whose keys are in etcd. Member a holds the lock.
struct Members {
    a: FakeMember,
    b: FakeMember,
}

impl Etcds {
    async fn start(count: usize, tls: bool) -> Self {
        let folder = TempDir::new().unwrap();
        if tls {
            certificates(&folder);
        }
        let mut etcds = Self {
            folder,
            processes: Vec::new(),
            clients: free_addresses(count),
            peers: free_addresses(count),
            tls,
            root: None,
            keepers: Vec::new(),
        };
        etcds.processes = (0..count).map(|number| etcds.launch(number)).collect();
        eventually("etcd answers", async || {
            etcds.try_ctl(&["endpoint", "health"]).map(drop)
        })
        .await;
        etcds
    }

    fn launch(&self, number: usize) -> Child {
        let scheme = if self.tls { "https" } else { "http" };
        let client = format!("{scheme}://{}", self.clients[number]);
        let peer = format!("http://{}", self.peers[number]);
        let all = self.peers.iter().enumerate();
        let all: Vec<_> = all.map(|(number, peer)| format!("e{number}=http://{peer}")).collect();
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("e{number}"), "--initial-cluster", &all.join(",")]);
        command
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("e{number}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        if self.tls {
            command.arg("--cert-file").arg(self.file("server.crt"));
            command.arg("--key-file").arg(self.file("server.key"));
            command.arg("--trusted-ca-file").arg(self.file("ca.crt"));
            command.arg("--client-cert-auth");
        }
        let log = fs::File::create(self.file(&format!("log{number}"))).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
            .spawn()
            .expect("start etcd, which Debian's package etcd-server has")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn urls(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let urls: Vec<_> = self
            .clients
            .iter()
            .map(|client| format!("{scheme}://{client}"))
            .collect();
        urls.join(",")
    }

    /// Runs etcdctl and returns its output.
    fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments)
            .unwrap_or_else(|| panic!("etcdctl {arguments:?}"))
    }

    fn try_ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.command().args(arguments).stderr(Stdio::null()).output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.urls()]);
        if self.tls {
            command.arg("--cacert").arg(self.file("ca.crt"));
            command.arg("--cert").arg(self.file("client.crt"));
            command.arg("--key").arg(self.file("client.key"));
        }
        if let Some(root) = self.root {
            command.args(["--user", root]);
        }
        command
    }

    fn put(&self, path: &str, value: &str) {
        self.ctl(&["put", &format!("{PREFIX}{path}"), "--", value]);
    }

    fn put_with_lease(&self, path: &str, value: &str, lease: &str) {
        self.ctl(&["put", "--lease", lease, &format!("{PREFIX}{path}"), "--", value]);
    }

    /// Grants a lease, and returns its id.
    fn lease(&self, ttl: u32) -> String {
        let granted = self.ctl(&["lease", "grant", &ttl.to_string()]);
        granted.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Renews a lease every second until [`Etcds::no_renewals`]. Each renewal authenticates again, because a change of
    /// roles ends every session of `lease keep-alive`.
    fn keep(&mut self, lease: &str) {
        let renew = self.command();
        let mut keeper = Command::new("sh");
        // The deadline ends a request that is under way when the shell is killed.
        keeper.args([
            "-c",
            r#"while :; do timeout 5 "$@" >/dev/null 2>&1; sleep 1; done"#,
            "sh",
        ]);
        keeper.arg(renew.get_program()).args(renew.get_args());
        keeper.args(["lease", "keep-alive", "--once", lease]);
        self.keepers.push(keeper.env("ETCDCTL_API", "3").spawn().unwrap());
    }

    fn no_renewals(&mut self) {
        for mut keeper in self.keepers.drain(..) {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }

    fn set_password(&self, user: &str, password: &str) {
        let mut command = self.command();
        command
            .args(["user", "passwd", "--interactive=false", user])
            .stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn kill(&mut self, number: usize) {
        self.processes[number].kill().unwrap();
        self.processes[number].wait().unwrap();
    }

    /// The number of the etcd that leads.
    fn leader(&self) -> usize {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
        let leads = |row: &Value| row["Status"]["leader"] == row["Status"]["header"]["member_id"];
        let row = status
            .as_array()
            .unwrap()
            .iter()
            .find(|row| leads(row))
            .unwrap()
            .clone();
        let endpoint = row["Endpoint"].as_str().unwrap();
        let is_it = |client: &SocketAddr| endpoint.ends_with(&client.to_string());
        self.clients.iter().position(is_it).unwrap()
    }

    /// Writes Patroni's keys; member a holds the lock with a lease of this ttl, which is renewed.
    async fn with_members(&mut self, ttl: u32) -> Members {
        let members = Members {
            a: FakeMember::start("a").await,
            b: FakeMember::start("b").await,
        };
        members.a.is_primary(1);
        self.put("config", &json!({"ttl": ttl, "loop_wait": 3}).to_string());
        self.put("initialize", "7440000000000000000");
        let lease = self.lease(ttl);
        self.put_with_lease("members/a", &status(&members.a, "primary"), &lease);
        self.put("members/b", &status(&members.b, "replica"));
        self.put_with_lease("leader", "a", &lease);
        self.keep(&lease);
        members
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        self.no_renewals();
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn status(member: &FakeMember, role: &str) -> String {
    member.pod(role)["status"].as_str().unwrap().to_owned()
}

/// Addresses that nothing listened on a moment ago.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}

/// Makes an authority, and certificates of it for server and client.
fn certificates(folder: &TempDir) {
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj";
    let openssl = |more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(new.split(' ')).args(more).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
    openssl(&["/CN=authority", "-keyout", &ca_key, "-out", &ca]);
    // With authentication enabled, etcd's gateway rejects a client certificate that has a CommonName.
    for (name, subject) in [("server", "/CN=etcd"), ("client", "/O=pgnorth")] {
        let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.crt")));
        let signed = ["-keyout", &key, "-out", &certificate, "-CA", &ca, "-CAkey", &ca_key];
        let names = [
            "-addext",
            "basicConstraints=critical,CA:false",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ];
        openssl(&[&[subject][..], &signed, &names].concat());
    }
    let (key, certificate) = (file("stranger.key"), file("stranger.crt"));
    openssl(&["/CN=stranger", "-keyout", &key, "-out", &certificate]);
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_fences_before_another_member_is_promoted() {
    let mut etcds = Etcds::start(1, false).await;
    let members = etcds.with_members(5).await;
    let product = Product::start_by_etcd(&etcds.urls(), &[]).await;
    product.decides("route", Some("a"), "a holds the leader lock").await;
    let session = product.session().await;
    etcds.no_renewals();
    product.decides("fence", None, "has not renewed the leader lock").await;
    session.ends().await;
    let lease = etcds.lease(5);
    etcds.keep(&lease);
    eventually("the key is gone", async || {
        etcds.ctl(&["get", &format!("{PREFIX}leader")]).is_empty().then_some(())
    })
    .await;
    members.a.is_replica(1);
    etcds.put_with_lease("leader", "b", &lease);
    product.decides("hold", None, "b is not ready for writes").await;
    members.b.is_primary(2);
    product.decides("route", Some("b"), "b holds the leader lock").await;
}

#[tokio::test]
async fn the_documented_role_suffices_and_a_password_and_certificates_are_replaced_without_a_restart() {
    let mut etcds = Etcds::start(1, true).await;
    let _members = etcds.with_members(20).await;
    for command in [
        "user add root:root-secret",
        "user grant-role root root",
        // As docs/operating/hosts.md says.
        "role add pgnorth",
        "role grant-permission pgnorth --prefix=true read /service/pg/",
        "user add pgnorth:first-secret",
        "user grant-role pgnorth pgnorth",
        "auth enable",
    ] {
        etcds.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    etcds.no_renewals();
    etcds.root = Some("root:root-secret");
    let lease = etcds.lease(20);
    etcds.put_with_lease("leader", "a", &lease);
    etcds.keep(&lease);
    let [ca, cert, key, password] = ["ca.crt", "mine.crt", "mine.key", "password"].map(|name| etcds.file(name));
    let replace = |from: &str, to: &PathBuf| fs::rename(copied(&etcds.file(from)), to).unwrap();
    replace("stranger.crt", &cert);
    replace("stranger.key", &key);
    fs::write(&password, "first-secret\n").unwrap();
    let flags = ["--etcd-ca", "--etcd-cert", "--etcd-key", "--etcd-password-file"];
    let files = [&ca, &cert, &key, &password];
    let mut flags: Vec<&str> = flags
        .iter()
        .zip(files)
        .flat_map(|(flag, file)| [*flag, file.to_str().unwrap()])
        .collect();
    flags.extend(["--etcd-user", "pgnorth"]);
    let product = Product::start_by_etcd(&etcds.urls(), &flags).await;

    product.tells("WARN", &["at any etcd endpoint", "BadCertificate"]).await;
    replace("client.key", &key);
    replace("client.crt", &cert);
    product.decides("route", Some("a"), "a holds the leader lock").await;
    let mut session = product.session().await;

    // The only right of the role, taken away and given back; and a narrower one.
    etcds.ctl(&["role", "revoke-permission", "--prefix=true", "pgnorth", PREFIX]);
    product.decides("route", Some("a"), "etcd cannot be read").await;
    product
        .tells("WARN", &["at any etcd endpoint", "permission denied"])
        .await;
    etcds.ctl(&["role", "grant-permission", "pgnorth", "read", "/service/pg/leader"]);
    product.decides("route", Some("a"), "permission denied").await;
    etcds.ctl(&["role", "grant-permission", "pgnorth", "--prefix=true", "read", PREFIX]);
    product.decides("route", Some("a"), "a holds the leader lock").await;

    etcds.set_password("pgnorth", "second-secret");
    product
        .decides("route", Some("a"), "rejects the user or the password")
        .await;
    fs::write(&password, "second-secret\n").unwrap();
    product.decides("route", Some("a"), "a holds the leader lock").await;
    session.lives().await;
    for secret in ["first-secret", "second-secret"] {
        product.keeps_secret(secret).await;
    }
}

#[tokio::test]
async fn etcds_leader_dies_and_the_lock_stays_watched_and_a_minority_is_no_source() {
    let mut etcds = Etcds::start(3, false).await;
    let _members = etcds.with_members(20).await;
    let product = Product::start_by_etcd(&etcds.urls(), &[]).await;
    product.decides("route", Some("a"), "a holds the leader lock").await;
    let mut session = product.session().await;

    let first = etcds.leader();
    etcds.kill(first);
    // Longer than a ttl: the lock is renewed and read at the other two.
    eventually("another etcd leads", async || {
        etcds.try_ctl(&["put", "/service/pg/failover", "--", r#"{"leader":"a","member":"b"}"#])
    })
    .await;
    product
        .decides("hold", Some("a"), "a switchover from a to b was announced")
        .await;
    etcds.put("failover", "{}");
    product.decides("route", Some("a"), "a holds the leader lock").await;

    let second = (first + 1) % 3;
    etcds.kill(second);
    product.decides("route", Some("a"), "etcd cannot be read").await;
    session.lives().await;
    etcds.processes[second] = etcds.launch(second);
    product.decides("route", Some("a"), "a holds the leader lock").await;
    session.lives().await;
    assert!(!product.log().contains("fencing"), "{}", product.log());
}

#[tokio::test]
async fn a_watch_that_goes_silent_hides_no_switchover() {
    let mut etcds = Etcds::start(1, false).await;
    let _members = etcds.with_members(10).await;
    let relay = FakeSilentRelay::start(etcds.clients[0]).await;
    let product = Product::start_by_etcd(&format!("http://{}", relay.address), &[]).await;
    product.decides("route", Some("a"), "a holds the leader lock").await;
    relay.silent.store(true, Ordering::Relaxed);
    etcds.put("failover", r#"{"leader":"a","member":"b"}"#);
    product
        .decides("hold", Some("a"), "a switchover from a to b was announced")
        .await;
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_says_so() {
    let etcds = Etcds::start(1, false).await;
    for number in 0..3 {
        etcds.put("status", &number.to_string());
    }
    let connector = Connector::new("etcd", TlsFiles::default()).unwrap();
    let gateway = Gateway::new(connector, None);
    let mut session = gateway.session(&BaseUrl::parse(&etcds.urls()).unwrap());
    let listing = session.list(PREFIX, false).await.unwrap();
    etcds.ctl(&["compaction", &listing.revision.to_string()]);
    let mut watch = session.watch(PREFIX, 1).await.unwrap();
    assert_eq!(
        within("etcd answers", watch.next()).await.unwrap(),
        WatchMessage::Compacted
    );
    let mut watch = session.watch(PREFIX, listing.revision + 1).await.unwrap();
    etcds.put("status", "4");
    let WatchMessage::Changes(changes) = within("etcd reports", watch.next()).await.unwrap() else {
        panic!("no change");
    };
    assert_eq!(changes.len(), 1);
}

#[tokio::test]
async fn the_doctor_checks_etcd() {
    let mut etcds = Etcds::start(1, false).await;
    let members = etcds.with_members(20).await;
    let report = doctor(&etcds.urls(), "").await;
    for line in [
        "5 keys below /service/pg/ can be listed and watched",
        "/service/pg/leader: a holds the lock",
        "its lease was renewed",
        "names only one endpoint",
        "a, REST API",
        "b, PostgreSQL",
    ] {
        assert!(report.contains(line), "{line:?} in\n{report}");
    }
    assert!(report.contains("0 FAIL"), "{report}");

    let dead = free_addresses(1)[0];
    let report = doctor(&format!("{},http://{dead}", etcds.urls()), "").await;
    assert!(
        report.contains("Connection refused") && report.contains("0 FAIL"),
        "{report}"
    );
    let report = doctor(&etcds.urls(), "--etcd-namespace /other").await;
    assert!(report.contains("no key begins with /other/pg/"), "{report}");
    assert!(report.contains("--etcd-namespace must be"), "{report}");

    etcds.no_renewals();
    let report = doctor(&etcds.urls(), "").await;
    assert!(report.contains("no renewal of its lease within 8s"), "{report}");
    drop(members);
}

async fn doctor(urls: &str, flags: &str) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.env_clear().args(["doctor", "--scope", "pg", "--etcd", urls]);
    command.args(flags.split_whitespace());
    let output = within("pgnorth doctor ends", command.output()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Passes bytes on, and stops to do so for connections that carry a watch: a stateful firewall forgets them.
struct FakeSilentRelay {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl FakeSilentRelay {
    async fn start(etcd: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let relay = Self {
            address: listener.local_addr().unwrap(),
            silent: silent.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(etcd).await.unwrap();
                tokio::spawn(pass(client, server, silent.clone()));
            }
        });
        relay
    }
}

async fn pass(client: TcpStream, server: TcpStream, silent: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut first = vec![0; 4096];
    let Ok(length) = from_client.read(&mut first).await else {
        return;
    };
    let is_watch = first.windows(9).any(|window| window == b"/v3/watch");
    // A watch that is opened after the silence began works.
    let until_silent = is_watch && !silent.load(Ordering::Relaxed);
    to_server.write_all(&first[..length]).await.unwrap();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut bytes = vec![0; 65_536];
    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
        let is_silent = until_silent && silent.load(Ordering::Relaxed);
        if !is_silent && to_client.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

fn copied(file: &PathBuf) -> PathBuf {
    let copy = file.with_extension("copy");
    fs::copy(file, &copy).unwrap();
    copy
}
