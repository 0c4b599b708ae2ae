//! Reloads under PostgreSQL's own clients, each with a real session: a COPY each way, LISTEN and NOTIFY, an open
//! transaction, logins with SCRAM and TLS, and a switchover meanwhile.
//!
//! PostgreSQL has no half-closed sessions: it ends a session whose client has closed its side. `tests/local/reload.rs`
//! passes those, and held clients in their order.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::support::load::{Attempt, Load, Outcome};
use crate::support::pgnorth::is_pgnorth;
use crate::support::psql::{PASSWORD, config};
use crate::support::{Dcs, Product, Rig, session, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: Duration = Duration::from_secs(60);
/// Deadline against hanging. A COPY ends some seconds after the last reload.
const DEADLINE: Duration = Duration::from_secs(300);
/// Clients that log in, insert a row and leave, all the time.
const CLIENTS: usize = 4;
/// Pause between two notifications.
const NOTIFIES: Duration = Duration::from_millis(5);
/// Sessions that are idle, each in a transaction.
const IDLE: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_session_notices_a_reload_and_in_a_switchover_only_those_of_the_old_primary_end() {
    reloads(64, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some two minutes: make test-reload-rig"]
async fn a_gibibyte_each_way_over_many_reloads() {
    reloads(1024, 30).await;
}

async fn reloads(mebibytes: u32, count: u32) {
    let rig = Rig::start(Dcs::Etcd).await;
    let mut product = Product::start_on_etcd(&rig, &[]).await;
    product.wait_until_writable(SOON).await;
    let sessions = Sessions::start(product.address(), rig.folder(), mebibytes).await;
    let load = Load::start(product.address(), CLIENTS).await;
    let mut old = Vec::new();
    for _ in 0..count {
        old.push(product.id());
        product.reload().await.unwrap();
        sessions.wait_for_more_logins().await;
    }
    let sessions = sessions.finish().await;
    let attempts = load.finish().await;
    let failed: Vec<_> = attempts.iter().filter(|attempt| !acknowledged(attempt)).collect();
    println!(
        "{count} reloads: {} logins with an insert, of which failed: {failed:?}",
        attempts.len()
    );
    assert!(failed.is_empty());
    wait_until("the replaced processes end", SOON, async || {
        (!old.iter().any(|id| is_pgnorth(*id))).then_some(())
    })
    .await;
    for line in ["\"WARN\"", "\"ERROR\""] {
        assert!(!product.log().contains(line), "{line} in the log");
    }
    switchover_while_reloading(&rig, &mut product, sessions).await;
}

/// Reloads follow each other from the request for a switchover to its end.
async fn switchover_while_reloading(rig: &Rig, product: &mut Product, old: Vec<Client>) {
    let load = Load::start(product.address(), CLIENTS).await;
    let over = Cell::new(false);
    let switchover = async {
        rig.switchover(Some(rig.member(1).name())).await;
        over.set(true);
    };
    let reloading = async {
        let mut states = Vec::new();
        while !over.get() {
            let leader = product.admin_get("/leader").await.json();
            product.reload().await.unwrap();
            states.push(leader["state"].as_str().unwrap_or_default().to_owned());
        }
        states
    };
    let ((), states) = timeout(DEADLINE, async { tokio::join!(switchover, reloading) })
        .await
        .expect("the switchover ends");
    let new = rig.wait_for_new_leader(rig.member(0), FAILOVER).await;
    assert_eq!(product.wait_until_writable(FAILOVER).await, new.ip().to_string());
    let writable = Instant::now();
    wait_until("the sessions of the old primary end", SOON, async || {
        old.iter().all(Client::is_closed).then_some(())
    })
    .await;
    let stays = session(product.address()).await.unwrap();
    product.reload().await.unwrap();
    stays
        .simple_query("select 1")
        .await
        .expect("sessions of the new primary live");
    let attempts = load.finish().await;
    let failed: Vec<_> = attempts.iter().filter(|attempt| !acknowledged(attempt)).collect();
    println!(
        "a switchover over {} reloads, begun as {states:?}: {} inserts, of which failed: {failed:?}",
        states.len(),
        attempts.len()
    );
    let is_wrong = |attempt: &&&Attempt| match &attempt.outcome {
        // A login or an insert that the old primary cut as it stopped.
        Outcome::NotConnected(error) => error.contains("no primary could be reached") || attempt.started > writable,
        Outcome::Broken(_) => attempt.started > writable,
        _ => true,
    };
    assert_eq!(failed.iter().filter(is_wrong).count(), 0);
}

fn acknowledged(attempt: &Attempt) -> bool {
    matches!(attempt.outcome, Outcome::Acknowledged { .. })
}

/// Sessions at work, which check each byte and message.
struct Sessions {
    at: SocketAddr,
    /// Tells the copies that there is no more reload to come.
    stop_file: PathBuf,
    copies: [JoinHandle<String>; 2],
    stop: CancellationToken,
    notifications: mpsc::UnboundedReceiver<String>,
    notifier: JoinHandle<u32>,
    logins: mpsc::UnboundedReceiver<()>,
    /// One logs in again and again, the other asks in one session.
    tls: [JoinHandle<()>; 2],
    idle: Vec<Client>,
    listener: Client,
}

impl Sessions {
    async fn start(at: SocketAddr, folder: &Path, mebibytes: u32) -> Self {
        let (script, stop_file) = (folder.join("copy.py"), folder.join("no-more-reloads"));
        std::fs::write(&script, COPIES).unwrap();
        let table = "create unlogged table big (line text)";
        session(at).await.unwrap().batch_execute(table).await.unwrap();
        let (lines, script) = (mebibytes * 1024, script.display());
        let python = |way: &str| format!("python3 {script} {way} {lines} {}", stop_file.display());
        let rows = format!(
            "select left(repeat(lpad(n::text, 16, '0'), 64), 1023) from generate_series(0, {}) n",
            lines - 1
        );
        let copy_in = format!("{} | psql --quiet -c 'copy big from stdin'", python("in"));
        let copy_out = format!("psql --quiet -c \"copy ({rows}) to stdout\" | {}", python("out"));
        let stop = CancellationToken::new();
        let (listener, notifications) = listen(at).await;
        let notifier = tokio::spawn(notify(at, stop.clone()));
        let (sender, logins) = mpsc::unbounded_channel();
        let tls = [
            tokio::spawn(ask_with_tls(at, "\\connect\n", sender, stop.clone())),
            tokio::spawn(ask_with_tls(at, "", mpsc::unbounded_channel().0, stop.clone())),
        ];
        let mut idle = Vec::new();
        for number in 0..IDLE {
            let client = session(at).await.unwrap();
            let begin = format!("begin; create temp table own as select {number} as number");
            client.batch_execute(&begin).await.unwrap();
            idle.push(client);
        }
        Self {
            at,
            copies: [copy_in, copy_out].map(|line| tokio::spawn(shell(at, line))),
            stop_file,
            stop,
            notifications,
            notifier,
            logins,
            tls,
            idle,
            listener,
        }
    }

    /// Waits for logins that began after a reload.
    async fn wait_for_more_logins(&self) {
        let before = self.logins.len();
        wait_until("clients log in with TLS", SOON, async || {
            (self.logins.len() > before + 5).then_some(())
        })
        .await;
    }

    /// Ends all but the idle ones, which it returns, and compares what they have seen.
    async fn finish(mut self) -> Vec<Client> {
        std::fs::write(&self.stop_file, "").unwrap();
        self.stop.cancel();
        let [copy_in, copy_out] = self.copies;
        let (sent, out) = (copy_in.await.unwrap(), copy_out.await.unwrap());
        let stored = "psql --quiet -c 'copy big to stdout' | sha256sum | cut -c 1-64";
        let stored = shell(self.at, stored.to_owned()).await;
        let [expected, received] = out.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("two hashes: {out}");
        };
        assert_eq!(expected, received, "what the server sent");
        let [hash, lines] = sent.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("a hash and a number: {sent}");
        };
        assert_eq!(hash, stored.trim(), "what the client sent");
        let notified = self.notifier.await.unwrap();
        for number in 0..notified {
            let received = timeout(DEADLINE, self.notifications.recv())
                .await
                .expect("a notification");
            assert_eq!(received, Some(number.to_string()), "of {notified} notifications");
        }
        for asking in self.tls {
            asking.await.unwrap();
        }
        println!(
            "{lines} KiB were copied to the server; {notified} notifications, {} logins with TLS",
            self.logins.len()
        );
        for (number, client) in self.idle.iter().enumerate() {
            let row = client.query_one("select number from own", &[]).await;
            let row = row.expect("the transaction is open");
            assert_eq!(usize::try_from(row.get::<_, i32>(0)), Ok(number));
        }
        self.idle.push(self.listener);
        self.idle
    }
}

/// Writes so many lines, and more until there is no more reload to come, and then their hash to standard error; or reads
/// lines, and leaves the last ones in the connection until there is no more reload to come.
const COPIES: &str = r#"
import hashlib, os, sys, time
way, lines, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def portions():
    n = 0
    while way == "out" and n < lines or way == "in" and (n < lines or not os.path.exists(stop)):
        yield b"".join((b"%016d" % m * 64)[:1023] + b"\n" for m in range(n, n + 64))
        n += 64
sent = hashlib.sha256()
count = 0
for portion in portions():
    sent.update(portion)
    count += 64
    if way == "in":
        sys.stdout.buffer.write(portion)
        if count > lines:
            time.sleep(0.01)
if way == "in":
    sys.stdout.buffer.flush()
    print(sent.hexdigest(), count, file=sys.stderr)
else:
    received, left = hashlib.sha256(), lines * 1024
    while portion := sys.stdin.buffer.read(1 << 16):
        received.update(portion)
        left -= len(portion)
        while not os.path.exists(stop) and left < lines * 512:
            time.sleep(0.01)
            if left > 1 << 22:
                break
    print(sent.hexdigest(), received.hexdigest(), file=sys.stderr)
"#;

/// Runs a line of bash with libpq's environment. Returns all that it prints; panics if it fails.
async fn shell(at: SocketAddr, line: String) -> String {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", &line]).envs(libpq(at));
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("hangs: {line}")).unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{line}: {printed}");
    printed
}

fn libpq(at: SocketAddr) -> [(&'static str, String); 5] {
    [
        ("PGHOST", at.ip().to_string()),
        ("PGPORT", at.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
        ("PGPASSWORD", PASSWORD.to_owned()),
    ]
}

/// Listens to `news`; returns the session and what it receives.
async fn listen(at: SocketAddr) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) = config(at).connect(NoTls).await.unwrap();
    let (sender, notifications) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _test_has_ended = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("listen news").await.unwrap();
    (client, notifications)
}

/// Sends numbers to `news`, from 0, in one session; returns how many.
async fn notify(at: SocketAddr, stop: CancellationToken) -> u32 {
    let client = session(at).await.unwrap();
    let mut number = 0;
    while !stop.is_cancelled() {
        let notify = format!("notify news, '{number}'");
        client.batch_execute(&notify).await.expect("the session lives");
        number += 1;
        tokio::time::sleep(NOTIFIES).await;
    }
    number
}

/// Asks again and again in one psql with TLS and SCRAM, with this line before each question.
async fn ask_with_tls(at: SocketAddr, before: &str, asked: mpsc::UnboundedSender<()>, stop: CancellationToken) {
    let mut command = Command::new("psql");
    command.args([
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
    ]);
    command.envs(libpq(at)).env("PGSSLMODE", "require").kill_on_drop(true);
    let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (psql.stdin.take().unwrap(), psql.stdout.take().unwrap());
    let mut lines = BufReader::new(from).lines();
    while !stop.is_cancelled() {
        let ask = format!("{before}select ssl from pg_stat_ssl where pid = pg_backend_pid();\n");
        to.write_all(ask.as_bytes()).await.unwrap();
        let line = timeout(DEADLINE, lines.next_line())
            .await
            .expect("psql answers")
            .unwrap();
        assert_eq!(line.as_deref(), Some("t"), "psql has a session with TLS");
        let _nobody_counts = asked.send(());
    }
}
