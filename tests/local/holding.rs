//! Clients wait for a leader, and only as long as they are there.

use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::metrics::SessionState;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::{Backend, HANG, Rig, leader, read_exactly, read_to_end, reset, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_and_its_first_bytes_reach_the_leader() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.write_all(b"startup").await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, 7).await, b"startup");
    leader.write_all(b"welcome").await.unwrap();
    assert_eq!(read_exactly(&mut client, 7).await, b"welcome");
    drop(client);
    assert_eq!(read_to_end(&mut leader).await, b"");
    drop(leader);
    rig.ends(Ending::ClientClosed, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_sessions_and_stops_new_clients() {
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    rig.slot
        .publish(RoutingState::Hold(Some(backend.leader.clone())), "switchover".into());
    let mut late = rig.connect().await;
    late.write_all(b"late").await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    client.write_all(b"still").await.unwrap();
    assert_eq!(read_exactly(&mut leader, 5).await, b"still");
    leader.write_all(b"here").await.unwrap();
    assert_eq!(read_exactly(&mut client, 4).await, b"here");
    rig.route(&backend);
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, 4).await, b"late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_that_leaves_is_forgotten_at_once() {
    // The hold lasts an hour: a session that ends before HANG was not ended by the deadline.
    for resets in [false, true] {
        let rig = Rig::start().await;
        let mut client = rig.connect().await;
        client.write_all(b"startup packet").await.unwrap();
        rig.reaches(SessionState::Held, 1).await;
        if resets {
            reset(client);
        } else {
            drop(client);
        }
        rig.ends(Ending::ClientLeft, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_with_unread_bytes_costs_no_cpu() {
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = rig.connect().await;
        client.write_all(b"startup packet").await.unwrap();
        clients.push(client);
    }
    rig.reaches(SessionState::Held, 100).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = (0..metrics.num_workers())
        .map(|worker| metrics.worker_park_unpark_count(worker))
        .sum::<u64>();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = (0..metrics.num_workers())
        .map(|worker| metrics.worker_park_unpark_count(worker))
        .sum::<u64>();
    // A busy loop would make tens of thousands; an idle runtime a handful.
    assert!(after - before < 1000, "{} wakeups", after - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dial_goes_back_to_hold_and_is_served_when_the_leader_returns() {
    let mut rig = Rig::start().await;
    let backend = Backend::start("pg-0").await;
    let address = backend.listener.local_addr().unwrap();
    let leader = backend.leader.clone();
    drop(backend);
    rig.slot.publish(RoutingState::Route(leader), "pg-0 leads".into());
    let mut client = rig.connect().await;
    client.write_all(b"startup").await.unwrap();
    for _ in 0..3 {
        let complaint = within("a complaint", rig.leader_failures.recv()).await.unwrap();
        assert_eq!(complaint.member, "pg-0");
        assert!(complaint.what.contains("refused"), "{}", complaint.what);
    }
    // It returns at the same address: nothing is published, the dials find out.
    let listener = TcpListener::bind(address).await.unwrap();
    let mut leader = within("the leader is dialled", listener.accept()).await.unwrap().0;
    assert_eq!(read_exactly(&mut leader, 7).await, b"startup");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_dials_do_not_move_the_hold_deadline() {
    let rig = Rig::with(pgnorth::proxy::Settings {
        hold: Duration::from_millis(700),
        ..super::support::settings()
    })
    .await;
    let gone = Backend::start("pg-0").await.leader;
    rig.slot.publish(RoutingState::Route(gone), "pg-0 leads".into());
    let begun = std::time::Instant::now();
    let mut client = rig.connect().await;
    let text = super::refusal::error_after(&mut client, &super::refusal::startup()).await;
    assert!(text.contains("pg-0") && text.contains("refused"), "{text}");
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    rig.ends(Ending::HoldExpired, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_hangs_is_given_up_when_its_leaders_time_ends() {
    // A listener whose backlog is full answers no SYN, like a host that vanished. The dial deadline is beyond HANG.
    let rig = Rig::with(pgnorth::proxy::Settings {
        connect_timeout: 10 * HANG,
        ..super::support::settings()
    })
    .await;
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent
        .bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
        .unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        fillers.push(filler.unwrap());
        assert!(fillers.len() < 100, "the backlog never fills");
    }
    rig.slot.publish(
        RoutingState::Route(leader("pg-0", "127.0.0.1", address.port())),
        "pg-0 leads".into(),
    );
    let mut client = rig.connect().await;
    client.write_all(b"startup").await.unwrap();
    rig.reaches(SessionState::Dialling, 1).await;
    let backend = Backend::start("pg-1").await;
    rig.route(&backend);
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, 7).await, b"startup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_named_by_dns_is_reached() {
    let rig = Rig::start().await;
    let backend = Backend::start("pg-0").await;
    // localhost may have an IPv6 address too, where nobody listens: then the second one must be tried.
    let named = leader("pg-0", "localhost", backend.leader.address.port);
    rig.slot.publish(RoutingState::Route(named), "pg-0 leads".into());
    rig.session(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hold_nobody_is_refused_while_the_leader_is_well() {
    let rig = Rig::with(pgnorth::proxy::Settings {
        hold: Duration::ZERO,
        ..super::support::settings()
    })
    .await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let startup = super::refusal::startup();
    // As many as may be connected at a time; the leader takes its time to answer them.
    let mut others = Vec::new();
    for _ in 0..64 {
        let mut client = rig.connect().await;
        client.write_all(&startup).await.unwrap();
        others.push((client, backend.accept().await));
    }
    let mut client = rig.connect().await;
    client.write_all(&startup).await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    others[7].1.write_all(b"welcome").await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, startup.len()).await, startup);
    leader.write_all(b"welcome").await.unwrap();
    assert_eq!(read_exactly(&mut client, 7).await, b"welcome");
    assert_eq!(rig.metrics.endings(Ending::HoldExpired), 0);
}
