//! Clients that wait while a reload takes place: held ones, and those whose first packet is not complete.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{copy, fake, leader, reload, replace, text};
use crate::fake_cluster::{Product, Session, eventually};
use crate::fake_patroni::FakeMember;
use crate::support::{Backend, read_exactly, within};

/// Clients that may dial at the same time.
const DIALS: u16 = 64;

/// A member that is no primary yet, and its PostgreSQL.
async fn future_leader() -> (FakeMember, Backend) {
    let mut member = FakeMember::start("a").await;
    let backend = Backend::start("a").await;
    member.postgres = backend.listener.local_addr().unwrap();
    member.lists(&[&member]);
    (member, backend)
}

/// A start-up packet: its length, the protocol's version, and instead of parameters this number.
fn packet(number: u16) -> Vec<u8> {
    [12, 3 << 16, u32::from(number)].map(u32::to_be_bytes).concat()
}

async fn connect(product: &Product) -> TcpStream {
    within("a client connects", TcpStream::connect(product.address))
        .await
        .unwrap()
}

async fn shows(product: &Product, line: &str) {
    eventually(line, async || {
        let metrics = product.page("/metrics").await.1;
        metrics.contains(&format!("{line}\n")).then_some(())
    })
    .await;
}

/// A client with this number, which is held as the `held`th one.
async fn held(product: &Product, number: u16, held: u16) -> TcpStream {
    let mut client = connect(product).await;
    client.write_all(&packet(number)).await.unwrap();
    shows(product, &format!("pgnorth_sessions{{state=\"held\"}} {held}")).await;
    client
}

/// Accepts the next dials, which are as many as may be under way, and answers each with its client's number.
async fn serve(backend: &Backend, numbers: std::ops::Range<u16>) -> Vec<TcpStream> {
    let (mut leaders, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in numbers.clone() {
        let mut leader = backend.accept().await;
        let packet = read_exactly(&mut leader, 12).await;
        seen.insert(u16::from_be_bytes([packet[10], packet[11]]));
        leaders.push((leader, packet));
    }
    assert_eq!(seen, numbers.collect(), "these clients are the next in the queue");
    let mut answered = Vec::new();
    for (mut leader, packet) in leaders {
        leader.write_all(&packet[10..]).await.unwrap();
        answered.push(leader);
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn held_clients_are_served_by_the_new_process_in_the_order_of_arrival_before_later_ones() {
    const EARLY: u16 = 3 * DIALS;
    const ALL: u16 = EARLY + DIALS;
    let (member, backend) = future_leader().await;
    let mut product = Product::start_by_rest(&[&member], &["--hold", "1h"]).await;
    let mut clients = Vec::new();
    for number in 0..EARLY {
        clients.push(held(&product, number, number + 1).await);
    }
    product.gets(Signal::HUP);
    // There is still no leader.
    assert_eq!(product.ended().await, Some(0));
    shows(&product, &format!("pgnorth_sessions{{state=\"held\"}} {EARLY}")).await;
    for number in EARLY..ALL {
        clients.push(held(&product, number, number + 1).await);
    }
    member.is_primary(1);
    let mut leaders = Vec::new();
    for first in (0..ALL).step_by(usize::from(DIALS)) {
        leaders.extend(serve(&backend, first..first + DIALS).await);
    }
    for (number, client) in (0..).zip(&mut clients) {
        let number: u16 = number;
        assert_eq!(read_exactly(client, 2).await, number.to_be_bytes());
    }
    // Each counts once.
    let metrics = product.page("/metrics").await.1;
    assert!(
        metrics.contains(&format!("pgnorth_accepted_total {ALL}\n")),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_have_not_sent_their_first_packet_go_on_in_the_new_process() {
    let member = leader().await;
    let flags = ["--proxy-protocol-from", "127.0.0.0/8"];
    for (flags, first, rest) in [
        (&[][..], &b""[..], &b"?"[..]),
        (&[], b"\0\0", b"\0\x0c\0\x03\0\0more"),
        (&flags, b"PROXY TCP4 192.0.2.7 10.", b"0.0.1 54321 5432\r\n?"),
        (&flags, b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 5432\r\n", b"?"),
    ] {
        let mut product = Product::start_by_rest(&[&member], flags).await;
        let mut client = connect(&product).await;
        client.write_all(first).await.unwrap();
        shows(&product, "pgnorth_pending_clients 1").await;
        product.gets(Signal::HUP);
        assert_eq!(product.ended().await, Some(0));
        client.write_all(rest).await.unwrap();
        match first {
            // FakeMember takes a zero as the beginning of an SSLRequest, and declines it.
            [0, ..] => assert_eq!(read_exactly(&mut client, 1).await, b"N"),
            _ => Session::of(client).await.lives().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_held_for_a_leader_that_cannot_be_reached_go_on_in_the_new_process() {
    let (member, backend) = future_leader().await;
    member.is_primary(1);
    let address = backend.leader.address.clone();
    drop(backend);
    let mut product = Product::start_by_rest(&[&member], &["--hold", "1h"]).await;
    let mut client = product.client().await;
    product.tells("WARN", &["could not be reached"]).await;
    product.gets(Signal::HUP);
    assert_eq!(product.ended().await, Some(0));
    let backend = tokio::net::TcpListener::bind(address.to_string()).await.unwrap();
    let (mut leader, _) = within("the client reaches the leader", backend.accept()).await.unwrap();
    assert_eq!(read_exactly(&mut leader, 1).await, b"?");
    leader.write_all(b"a").await.unwrap();
    assert_eq!(read_exactly(&mut client, 1).await, b"a");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_clients_that_a_successor_does_not_take_stay_with_their_places() {
    let (member, backend) = future_leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let product = Product::start_program(&binary, &[], &[&member], &["--hold", "1h"]).await;
    let mut clients = Vec::new();
    for number in 0..2 * DIALS {
        clients.push(held(&product, number, number + 1).await);
    }
    for (does, succeeds, why) in [
        ("dies", false, "exited before it took over"),
        ("hangs", false, "did not answer within"),
        ("refuses", true, "has taken over"),
    ] {
        replace(&binary, &fake(does, &member));
        let output = reload(product.id(), &[], &[]).await;
        assert_eq!(output.status.success(), succeeds, "{}", text(&output));
        assert!(text(&output).contains(why), "{why} in {}", text(&output));
    }
    member.is_primary(1);
    let mut leaders = serve(&backend, 0..DIALS).await;
    leaders.extend(serve(&backend, DIALS..2 * DIALS).await);
    for (number, client) in (0..).zip(&mut clients) {
        let number: u16 = number;
        assert_eq!(read_exactly(client, 2).await, number.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_is_lost_with_held_clients_is_reported_with_their_number() {
    let (member, backend) = future_leader().await;
    let folder = tempfile::TempDir::new().unwrap();
    let binary = copy(folder.path());
    let mut product = Product::start_program(&binary, &[], &[&member], &["--hold", "1h"]).await;
    let mut lost = Vec::new();
    for number in 0..3 {
        lost.push(held(&product, number, number + 1).await);
    }
    replace(&binary, &fake("takes", &member));
    let output = reload(product.id(), &[], &[]).await;
    assert!(!output.status.success());
    let why = "after it had taken over 3 sessions and held clients";
    assert!(text(&output).contains(why), "{}", text(&output));
    for mut client in lost {
        let mut rest = Vec::new();
        let _ = within("its connection ends", client.read_to_end(&mut rest)).await;
    }
    // The old process goes on for the others.
    fs::remove_file(&binary).unwrap();
    product.lives();
    let mut client = held(&product, 7, 1).await;
    member.is_primary(1);
    let _leader = serve(&backend, 7..8).await;
    assert_eq!(
        within("it is served", read_exactly(&mut client, 2)).await,
        7_u16.to_be_bytes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_during_reloads_without_a_leader_are_held() {
    let (member, backend) = future_leader().await;
    let product = Product::start_by_rest(&[&member], &["--hold", "1h"]).await;
    let (mut clients, mut pid) = (Vec::new(), product.id());
    for times in 1..=3_u16 {
        let reloading = tokio::spawn(async move { reload(pid, &[], &[]).await });
        for number in 0..10 {
            let mut client = connect(&product).await;
            client.write_all(&packet(times * 10 + number)).await.unwrap();
            clients.push((client, times * 10 + number));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(reloading.await.unwrap().status.success());
        product.is_replaced(times.into()).await;
        pid = *product.successors().last().unwrap();
    }
    member.is_primary(1);
    let _leaders = serve(&backend, 10..40).await;
    for (mut client, number) in clients {
        assert_eq!(read_exactly(&mut client, 2).await, number.to_be_bytes());
    }
}
