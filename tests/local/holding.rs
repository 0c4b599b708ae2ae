//! Clients wait for a leader, and only while they are connected.

use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::metrics::SessionState;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::fake_cluster::{Product, eventually};
use super::fake_patroni::FakeMember;
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
    const CLIENTS: usize = 100;
    // A process of its own, so that its workers are not confused with those of other tests.
    let replica = FakeMember::start("a").await;
    let product = Product::start_by_rest(&[&replica], &[]).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = product.client().await;
        client.write_all(&super::refusal::startup()).await.unwrap();
        clients.push(client);
    }
    let held = format!("pgnorth_sessions{{state=\"held\"}} {CLIENTS}");
    eventually("all clients are held", async || {
        let metrics = product.page("/metrics").await.1;
        metrics.lines().any(|line| line == held).then_some(())
    })
    .await;
    let before = worker_ticks(product.id());
    // The scheduler gives a worker that spins about as much time as this thread, on a busy machine too.
    let spin = tokio::task::spawn_blocking(|| {
        let cpu_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let begun = cpu_time();
        while cpu_time() - begun < Duration::from_millis(500) {}
    });
    spin.await.unwrap();
    let used = worker_ticks(product.id()) - before;
    assert!(
        used < 10,
        "the workers used {used} ticks of CPU time, beside a spin of 50"
    );
}

/// Returns the CPU time that all workers of a process have used, in ticks of 10 ms (proc(5)).
fn worker_ticks(process: u32) -> u64 {
    let mut workers = 0;
    let mut ticks = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((name, fields)) = stat.split_once(") ") else {
            continue;
        };
        if name.contains("(worker-") {
            // After the name: the state is field 3; user and system time are 14 and 15.
            let times = fields.split(' ').skip(11).take(2);
            ticks += times.map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
            workers += 1;
        }
    }
    assert!(workers > 0, "process {process} has no worker");
    ticks
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
        let failure = within("the failure is reported", rig.leader_failures.recv())
            .await
            .unwrap();
        assert_eq!(failure.member, "pg-0");
        assert!(failure.what.contains("refused"), "{}", failure.what);
    }
    // It returns at the same address: nothing is published, and the dials find it.
    let listener = TcpListener::bind(address).await.unwrap();
    let mut leader = within("the leader is dialled", listener.accept()).await.unwrap().0;
    assert_eq!(read_exactly(&mut leader, 7).await, b"startup");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_dials_do_not_move_the_hold_deadline() {
    let rig = Rig::with_hold(Duration::from_millis(700), super::support::settings()).await;
    let gone = Backend::start("pg-0").await.leader;
    rig.slot.publish(RoutingState::Route(gone), "pg-0 leads".into());
    let begun = std::time::Instant::now();
    let mut client = rig.connect().await;
    let text = super::refusal::error_after(&mut client, &super::refusal::startup()).await;
    assert!(text.contains("pg-0") && text.contains("refused"), "{text}");
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    rig.ends(Ending::HoldExpired, 1).await;
    // There is a pause between two dials. On a slow machine they are fewer.
    let dials = rig.metrics.render();
    let refused = dials
        .lines()
        .find_map(|line| line.strip_prefix("pgnorth_dial_seconds_count{outcome=\"failed\"} "));
    let refused: u32 = refused.expect("dials were refused").parse().unwrap();
    assert!((2..=20).contains(&refused), "{refused} dials in 0.7 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_hangs_ends_with_its_leaders_epoch() {
    // A listener whose backlog is full answers no SYN, like a host that is gone. The dial deadline is longer than HANG.
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
    // localhost may have an IPv6 address too, on which nothing listens: then the second address must be tried.
    let named = leader("pg-0", "localhost", backend.leader.address.port);
    rig.slot.publish(RoutingState::Route(named), "pg-0 leads".into());
    rig.session(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hold_no_client_is_refused_while_the_leader_answers() {
    let rig = Rig::with_hold(Duration::ZERO, super::support::settings()).await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let startup = super::refusal::startup();
    // As many as may be connected at a time; the leader answers them late.
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
