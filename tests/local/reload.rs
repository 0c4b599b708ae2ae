//! Reloads of the real binary: clients connect all the time, sessions stay, and a successor that fails changes nothing.

mod held;
mod soak;
mod state;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pgnorth::handover::{self, FromPredecessor, FromSuccessor, HandoverState, PREDECESSOR};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::fake_cluster::{Product, Session};
use super::fake_patroni::FakeMember;
use super::support::{Backend, HANG, Random, within};

const BINARY: &str = env!("CARGO_BIN_EXE_pgnorth");

async fn leader() -> FakeMember {
    let member = FakeMember::start("a").await;
    member.is_primary(1);
    member.lists(&[&member]);
    member
}

/// `pgnorth reload` for this process.
async fn reload(pid: u32, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.env_clear().envs(variables.iter().copied());
    command.args(["reload", "--pid", &pid.to_string()]).args(flags);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    within("pgnorth reload ends", run).await.unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A copy of the binary, which a test replaces.
fn copy(folder: &Path) -> PathBuf {
    let copy = folder.join("pgnorth");
    fs::copy(BINARY, &copy).unwrap();
    copy
}

/// Puts a script in the place of the binary that runs, as a package manager does: by a rename.
fn replace(binary: &Path, script: &str) {
    let new = binary.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, binary).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_is_refused_and_no_session_ends_over_reloads_under_load() {
    let member = leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let mut session = product.session().await;
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = tokio::spawn({
        let (address, over, served) = (product.address, over.clone(), served.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
                stream.write_all(b"?").await.unwrap();
                let mut session = Session::of(stream).await;
                session.lives().await;
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut pid = product.id();
    for times in 1..=3 {
        let before = served.load(Ordering::Relaxed);
        if times == 1 {
            product.gets(Signal::HUP);
        } else {
            let output = reload(pid, &[], &[]).await;
            assert!(output.status.success(), "{}", text(&output));
        }
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
        session.lives().await;
        super::support::until("clients are served by the new process", || {
            served.load(Ordering::Relaxed) > before + 20
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    within("the load ends", load).await.unwrap();
    session.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_live_on_in_the_new_process_and_the_old_one_ends() {
    let member = leader().await;
    let mut product = Product::start_by_rest(&[&member], &[]).await;
    let mut sessions = Vec::new();
    for _ in 0..200 {
        sessions.push(product.session().await);
    }
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    for session in &mut sessions {
        session.lives().await;
    }
    let metrics = product.page("/metrics").await.1;
    assert!(
        metrics.contains("pgnorth_sessions{state=\"forwarding\"} 200\n"),
        "{metrics}"
    );
    assert!(metrics.contains("pgnorth_accepted_total 200\n"), "{metrics}");
    drop(sessions);
    super::fake_cluster::eventually("they end in the new process", async || {
        let metrics = product.page("/metrics").await.1;
        let ended = "pgnorth_sessions_ended_total{ending=\"client_closed\"} 200\n";
        (metrics.contains(ended) && metrics.contains("pgnorth_sessions{state=\"forwarding\"} 0\n")).then_some(())
    })
    .await;
}

/// A member whose PostgreSQL answers the first byte with its name, and then echoes in bulk.
async fn echoing_leader() -> FakeMember {
    let mut member = FakeMember::start("a").await;
    let backend = Backend::start("a").await;
    member.postgres = backend.listener.local_addr().unwrap();
    member.is_primary(1);
    member.lists(&[&member]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = backend.listener.accept().await {
            tokio::spawn(async move {
                stream.read_u8().await?;
                stream.write_all(b"a").await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    member
}

/// Sends random bytes until `over`, with this pause between portions, and compares their echo. Returns their number.
fn echoes(session: Session, seed: u64, pace: Duration, over: Arc<AtomicBool>) -> JoinHandle<usize> {
    let (mut from, mut to) = session.into_stream().into_split();
    // Repeated, with a length that no buffer has: bytes that are lost or doubled would be out of step.
    let data = Arc::new(Random(seed).bytes(100_003));
    let sent_data = data.clone();
    let writing = tokio::spawn(async move {
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            within("bytes leave", to.write_all(&sent_data)).await.unwrap();
            sent += sent_data.len();
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
        }
        // A FIN behind what is on its way.
        to.shutdown().await.unwrap();
        sent
    });
    tokio::spawn(async move {
        let (mut seen, mut bytes) = (0, vec![0; 1 << 16]);
        loop {
            let position = seen % data.len();
            let most = bytes.len().min(data.len() - position);
            match within("bytes arrive", from.read(&mut bytes[..most])).await.unwrap() {
                0 => {
                    assert_eq!(seen, writing.await.unwrap(), "the stream was cut");
                    return seen;
                }
                count => {
                    let expected = &data[position..position + count];
                    assert!(bytes[..count] == *expected, "seed {seed}: other bytes after {seen}");
                    seen += count;
                }
            }
        }
    })
}

/// Random bytes are compared with their echo while reloads take the sessions from process to process.
#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_a_stream_arrives_once_and_in_order_over_reloads() {
    let member = echoing_leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let mut running = Vec::new();
    let over = Arc::new(AtomicBool::new(false));
    for seed in 1..=4 {
        running.push(echoes(product.session().await, seed, Duration::ZERO, over.clone()));
    }
    let mut pid = product.id();
    for times in 1..=10 {
        let output = reload(pid, &[], &[]).await;
        assert!(output.status.success(), "{}", text(&output));
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for session in running {
        assert!(within("the stream ends", session).await.unwrap() > 0);
    }
    let log = product.log();
    assert!(!log.contains("WARN"), "a session stayed behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_session_goes_on_in_the_new_process() {
    let (mut product, mut client, mut leader) = in_front_of_a_test().await;
    // The leader has closed its side; it still reads what the client sends.
    leader.write_all(b"the end").await.unwrap();
    leader.shutdown().await.unwrap();
    let mut seen = Vec::new();
    within("the end arrives", client.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(seen, b"the end");
    client.write_all(b"more").await.unwrap();
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    let mut more = [0; 4];
    within("bytes arrive", leader.read_exact(&mut more)).await.unwrap();
    client.write_all(b"last").await.unwrap();
    within("bytes arrive", leader.read_exact(&mut more)).await.unwrap();
    assert_eq!(&more, b"last");
    drop(client);
    let mut rest = Vec::new();
    within("the FIN arrives", leader.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_nobody_reads_yet_are_passed_on() {
    let (mut product, mut client, mut leader) = in_front_of_a_test().await;
    // Both ways, until nothing more is taken: buffers and pipes are full.
    let (mut sent, mut random) = ([0_usize; 2], [Random(1), Random(2)]);
    for (number, stream) in [&mut client, &mut leader].into_iter().enumerate() {
        loop {
            let mut copy = random[number].clone();
            let bytes = copy.bytes(1 << 16);
            match tokio::time::timeout(Duration::from_millis(300), stream.writable()).await {
                Err(_) => break,
                Ok(ready) => ready.unwrap(),
            }
            match stream.try_write(&bytes) {
                Ok(count) if count == bytes.len() => {
                    sent[number] += count;
                    random[number] = copy;
                }
                Ok(count) => {
                    sent[number] += count;
                    break;
                }
                Err(_) => {}
            }
        }
    }
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    for (number, stream) in [&mut leader, &mut client].into_iter().enumerate() {
        let mut seen = vec![0; sent[number]];
        within("all bytes arrive", stream.read_exact(&mut seen)).await.unwrap();
        assert!(seen == Random(number as u64 + 1).bytes(sent[number]), "way {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_after_a_reload_ends_the_sessions_that_were_passed() {
    let (a, b) = (leader().await, FakeMember::start("b").await);
    b.lists(&[&a, &b]);
    a.lists(&[&a, &b]);
    let mut product = Product::start_by_rest(&[&a, &b], &[]).await;
    let session = product.session().await;
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    a.is_replica(2);
    b.is_primary(2);
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_every_route_live_on() {
    let (a, b) = (leader().await, FakeMember::start("b").await);
    a.lists(&[&a, &b]);
    b.lists(&[&a, &b]);
    let mut product = Product::start_by_rest(&[&a, &b], &["--route", "127.0.0.1:0=replica"]).await;
    let status: serde_json::Value = serde_json::from_str(&product.page("/status").await.1).unwrap();
    let replicas: std::net::SocketAddr = status["routes"][1]["address"].as_str().unwrap().parse().unwrap();
    let mut client = within("a client connects", TcpStream::connect(replicas)).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let mut reading = Session::of(client).await;
    assert_eq!(reading.member, "b");
    let mut writing = product.session().await;
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    reading.lives().await;
    writing.lives().await;
}

/// pgnorth, a client, and the leader's side of its session.
async fn in_front_of_a_test() -> (Product, TcpStream, TcpStream) {
    let mut member = FakeMember::start("a").await;
    let backend = Backend::start("a").await;
    member.postgres = backend.listener.local_addr().unwrap();
    member.is_primary(1);
    member.lists(&[&member]);
    let product = Product::start_by_rest(&[&member], &[]).await;
    let client = product.client().await;
    let mut leader = backend.accept().await;
    let mut first = [0];
    within("the first byte arrives", leader.read_exact(&mut first))
        .await
        .unwrap();
    let mut client = client;
    leader.write_all(b"a").await.unwrap();
    within("the answer arrives", client.read_exact(&mut first))
        .await
        .unwrap();
    (product, client, leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_and_listeners_may_change() {
    let member = leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let output = reload(product.id(), &[], &["--workers", "3", "--admin=127.0.0.1:0"]).await;
    assert!(output.status.success(), "{}", text(&output));
    product.is_replaced(1).await;
    product.session().await;
    let settings = product
        .logs("the successor's settings", |event| {
            let settings = event["fields"]["settings"].as_str().unwrap_or_default();
            settings.contains("--workers 3")
        })
        .await;
    assert!(settings["fields"]["settings"].as_str().unwrap().contains("--patroni"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_moves_to_another_address_with_the_same_port_and_back_and_refuses_no_client() {
    let member = leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let port = product.address.port();
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = tokio::spawn({
        let (address, over, served) = (product.address, over.clone(), served.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
                stream.write_all(b"?").await.unwrap();
                Session::of(stream).await.lives().await;
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut pid = product.id();
    let elsewhere = || TcpStream::connect(("127.0.0.2", port));
    for (times, ip) in (1..).zip(["0.0.0.0", "127.0.0.1", "0.0.0.0", "127.0.0.1"]) {
        let output = reload(pid, &[], &["--listen", &format!("{ip}:{port}")]).await;
        assert!(output.status.success(), "{}", text(&output));
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
        super::fake_cluster::eventually("the other address is served, or is not any more", async || {
            (elsewhere().await.is_ok() == (ip == "0.0.0.0")).then_some(())
        })
        .await;
        let before = served.load(Ordering::Relaxed);
        super::support::until("clients are served", || served.load(Ordering::Relaxed) > before + 20).await;
    }
    over.store(true, Ordering::Relaxed);
    within("the load ends", load).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn as_exec_reload_it_passes_on_the_environment() {
    let member = leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let pid = product.id().to_string();
    let variables = [("MAINPID", pid.as_str()), ("PGNORTH_HOLD", "17s")];
    let output = reload(product.id(), &variables, &[]).await;
    assert!(output.status.success(), "{}", text(&output));
    product
        .logs("the variable is in force", |event| {
            let settings = event["fields"]["settings"].as_str().unwrap_or_default();
            settings.contains("--hold 17s")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_setting_is_named_and_changes_nothing() {
    let member = leader().await;
    let mut product = Product::start_by_rest(&[&member], &[]).await;
    let mut session = product.session().await;
    let output = reload(product.id(), &[], &["--workers", "many"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for words in ["--workers many", "keeps its settings"] {
        assert!(text(&output).contains(words), "{words} in {}", text(&output));
    }
    product.tells("WARN", &["not reloaded"]).await;
    session.lives().await;
    product.session().await;
    product.lives();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_and_changes_nothing() {
    let member = leader().await;
    let mut product = Product::start_by_rest(&[&member], &[]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = reload(product.id(), &[], &["--listen", &address]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&address), "{}", text(&output));
    product.session().await;
    product.lives();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_ends_or_hangs_changes_nothing() {
    let member = leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let mut product = Product::start_program(&binary, &[], &[&member], &[]).await;
    let mut session = product.session().await;
    for (script, why) in [
        ("exit 3", "exit status: 3"),
        ("exec sleep 600", "did not answer within"),
    ] {
        replace(&binary, script);
        let output = reload(product.id(), &[], &[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(why), "{why} in {}", text(&output));
        session.lives().await;
        product.session().await;
        product.lives();
    }
    fs::remove_file(&binary).unwrap();
    let output = reload(product.id(), &[], &[]).await;
    assert!(text(&output).contains("cannot start"), "{}", text(&output));
    // The next attempt is not the worse for it.
    fs::copy(BINARY, &binary).unwrap();
    let output = reload(product.id(), &[], &[]).await;
    assert!(output.status.success(), "{}", text(&output));
    product.session().await;
    session.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_does_not_see_the_leader_takes_nothing_and_ends_with_a_shutdown() {
    let member = leader().await;
    let nobody = FakeMember::start("b").await;
    let mut product = Product::start_by_rest(&[&member], &["--lame-duck", "0s", "--drain", "0s"]).await;
    product.session().await;
    let blind = format!("http://{}", nobody.rest);
    let pid = product.id();
    let reloading = tokio::spawn(async move { reload(pid, &[], &["--patroni", &blind]).await });
    product
        .logs("the new process has read its settings", |event| {
            let message = event["fields"]["message"].as_str().unwrap_or_default();
            message.contains("now gets the listeners")
        })
        .await;
    product.session().await;
    product.is_asked_to_end();
    let output = within("the command ends", reloading).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("shutdown"), "{}", text(&output));
    assert_eq!(product.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_idle_process_are_as_many_after_reloads() {
    let member = leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let files = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut counts = Vec::new();
    let mut pid = product.id();
    for times in 1..=4 {
        let output = reload(pid, &[], &[]).await;
        assert!(output.status.success(), "{}", text(&output));
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
        drop(product.session().await);
        counts.push(within("the count settles", settled(|| files(pid))).await);
    }
    assert!(counts[3] <= counts[1], "{counts:?}");
}

/// The count once it stays the same for a moment.
async fn settled(count: impl Fn() -> usize) -> usize {
    let mut last = count();
    let mut same = 0;
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Not a test: the successor of the next one, in a process of its own. It does as it is told until it gets sessions.
#[test]
#[ignore = "is started by another test"]
fn fake_successor() {
    let variable = |name| std::env::var(name).unwrap();
    let channel = handover::predecessor(std::env::var_os(PREDECESSOR)).unwrap().unwrap();
    let send = |message: FromSuccessor| channel.send(&message, &[], &[], HANG).unwrap();
    send(FromSuccessor::Hello {
        version: "fake".to_owned(),
        session_format: pgnorth::proxy::SESSION_FORMAT + u32::from(variable("FAKE_SUCCESSOR") == "differs"),
    });
    let mut records = 0;
    loop {
        match channel.receive::<FromPredecessor>(HANG).unwrap().message {
            FromPredecessor::Hello { .. } => {}
            FromPredecessor::Failovers { failovers } => records += failovers.len(),
            FromPredecessor::Ask { .. } => send(FromSuccessor::State(HandoverState {
                ready: true,
                routes: true,
                leader: Some((variable("FAKE_NAME"), variable("FAKE_LEADER"))),
                target: None,
                reason: String::new(),
                members: vec![format!(
                    "primary {} at {}",
                    variable("FAKE_NAME"),
                    variable("FAKE_LEADER")
                )],
                held_until: None,
            })),
            FromPredecessor::Take { .. } if variable("FAKE_SUCCESSOR") == "takes" => return,
            FromPredecessor::Take { .. } if variable("FAKE_SUCCESSOR") == "differs" && records == 0 => return,
            FromPredecessor::Take { .. } => send(FromSuccessor::Taken),
            FromPredecessor::Sessions { sessions } => match variable("FAKE_SUCCESSOR").as_str() {
                "dies" => return,
                "takes" => send(FromSuccessor::SessionsTaken { left: Vec::new() }),
                "hangs" => std::thread::sleep(HANG),
                "errs" => send(FromSuccessor::Taken),
                other => send(FromSuccessor::SessionsRefused {
                    why: format!("{other}: {} sessions", sessions.len()),
                }),
            },
            FromPredecessor::Done { .. } => return,
        }
    }
}

/// The script of a successor that does as [`fake_successor`] says, and sees this leader.
fn fake(does: &str, leader: &FakeMember) -> String {
    let fake = std::env::current_exe().unwrap();
    let (fake, name, address) = (fake.display(), &leader.name, leader.postgres);
    format!(
        "FAKE_SUCCESSOR={does} FAKE_NAME={name} FAKE_LEADER={address} \
         exec '{fake}' --exact reload::fake_successor --ignored"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_a_lost_successor_has_not_taken_go_on() {
    let member = leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let mut product = Product::start_program(&binary, &[], &[&member], &[]).await;
    let mut sessions = Vec::new();
    for _ in 0..40 {
        sessions.push(product.session().await);
    }
    for (does, why) in [
        ("dies", "exited before it took over (exit status: 0)"),
        ("hangs", "did not answer within"),
        ("errs", "sent an unexpected message"),
    ] {
        replace(&binary, &fake(does, &member));
        let output = reload(product.id(), &[], &[]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(why), "{why} in {}", text(&output));
        for session in &mut sessions {
            session.lives().await;
        }
        // It accepts again.
        product.session().await;
        product.lives();
    }
    fs::remove_file(&binary).unwrap();
    fs::copy(BINARY, &binary).unwrap();
    assert!(reload(product.id(), &[], &[]).await.status.success());
    for session in &mut sessions {
        session.lives().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_successor_refuses_finish_in_the_old_process() {
    let member = leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let mut product = Product::start_program(&binary, &[], &[&member], &[]).await;
    let mut session = product.session().await;
    replace(&binary, &fake("refuses", &member));
    assert!(reload(product.id(), &[], &[]).await.status.success());
    product.tells("WARN", &["cannot take more sessions"]).await;
    session.lives().await;
    product.lives();
    drop(session);
    assert_eq!(product.ended().await, Some(0));
}
