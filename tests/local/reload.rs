//! Reloads of the real binary: clients connect all the time, sessions stay, and a successor that fails changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::fake_cluster::{Product, Session};
use super::fake_patroni::FakeMember;
use super::support::within;

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
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"?").await.unwrap();
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
async fn the_old_process_ends_with_its_last_session() {
    let member = leader().await;
    let mut product = Product::start_by_rest(&[&member], &[]).await;
    let session = product.session().await;
    product.gets(Signal::HUP);
    product.is_replaced(1).await;
    product.lives();
    drop(session);
    assert_eq!(product.ended().await, Some(0));
    product.session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stayed_in_the_old_process_ends_with_its_leader() {
    let (a, b) = (leader().await, FakeMember::start("b").await);
    b.lists(&[&a, &b]);
    a.lists(&[&a, &b]);
    let product = Product::start_by_rest(&[&a, &b], &[]).await;
    let session = product.session().await;
    product.gets(Signal::HUP);
    product.is_replaced(1).await;
    a.is_replica(2);
    b.is_primary(2);
    session.ends().await;
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
    for words in ["--workers many", "goes on as before"] {
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
            message.contains("looks for the leader")
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
