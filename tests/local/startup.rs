//! Clients that connect and send nothing keep no client out: they get no backend, and are closed in favour of others;
//! and each connection has its ending.

use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::metrics::SessionState;
use pgnorth::proxy::Settings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::refusal::{error_after, startup};
use super::support::{Backend, HANG, Random, Rig, read_all, read_exactly, reset, settings, until, within};

const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Returns the error that arrives although the client sends nothing.
async fn error(client: &mut TcpStream) -> String {
    error_after(client, b"").await
}

/// Accepts a start-up as the leader, and answers it.
async fn welcome(backend: &Backend) -> TcpStream {
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, startup().len()).await, startup());
    leader.write_all(WELCOME).await.unwrap();
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_beside_four_hundred_silent_clients_a_second_all_succeed() {
    let (rig, backend) = Rig::routed().await;
    let address = rig.address;
    let flood = tokio::spawn(async move {
        let (begun, mut silent) = (Instant::now(), Vec::new());
        for count in 0_u32.. {
            sleep_until(begun + Duration::from_micros(2500) * count).await;
            silent.push(TcpStream::connect(address).await.unwrap());
        }
    });
    until("the flood has begun", || rig.metrics.pending.get() > 100).await;
    for _ in 0..20 {
        let mut client = rig.connect().await;
        client.write_all(&startup()).await.unwrap();
        // The leader's next connection is this client's, and none of the silent ones'.
        let _leader = welcome(&backend).await;
        assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    }
    assert!(!flood.is_finished());
    flood.abort();
    assert_eq!(rig.sessions(SessionState::Held), 0);
    assert!(
        timeout(Duration::from_millis(1), backend.listener.accept())
            .await
            .is_err(),
        "a silent client got a backend"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_connections_run_out_the_oldest_silent_client_is_closed() {
    let rig = Rig::with(Settings {
        max_sessions: 10,
        ..settings()
    })
    .await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    // All connections that are allowed: the limit of sessions, and the reserve.
    let mut silent = Vec::new();
    for _ in 0..10 + 256 {
        silent.push(rig.connect().await);
        let all = silent.len() as i64;
        until("it is pending", || rig.metrics.pending.get() == all).await;
    }
    let mut sessions = Vec::new();
    for (number, evicted) in silent.iter_mut().take(10).enumerate() {
        let mut client = rig.connect().await;
        client.write_all(&startup()).await.unwrap();
        let leader = welcome(&backend).await;
        assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
        let text = error(evicted).await;
        assert!(
            text.starts_with("08P01 ") && text.contains("start-up packet"),
            "{number}: {text}"
        );
        sessions.push((client, leader));
    }
    assert_eq!(rig.metrics.endings(Ending::StartupExpired), 10);
    rig.reaches(SessionState::Forwarding, 10).await;
    let text = error_after(&mut rig.connect().await, &startup()).await;
    assert!(text.starts_with("53300 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_packet_that_never_ends_is_given_up_with_a_reason() {
    let rig = Rig::with(Settings {
        startup: Duration::from_millis(500),
        ..settings()
    })
    .await;
    let mut silent = rig.connect().await;
    let mut slow = rig.connect().await;
    let dribble = async {
        for byte in startup().iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let text = tokio::select! {
        text = error(&mut silent) => text,
        () = dribble => unreachable!("the silent client is refused first"),
    };
    assert!(text.starts_with("08P01 ") && text.contains("500ms"), "{text}");
    until("both are given up", || rig.metrics.endings(Ending::StartupExpired) == 2).await;
    rig.ends(Ending::StartupExpired, 2).await;
    assert_eq!(rig.metrics.pending.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_by_tcp_connect_reaches_no_leader() {
    let (rig, backend) = Rig::routed().await;
    for resets in [false, true] {
        let client = rig.connect().await;
        if resets {
            reset(client);
        }
    }
    rig.ends(Ending::NoStartup, 2).await;
    assert!(
        timeout(Duration::from_millis(1), backend.listener.accept())
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_first_packet_is_on_its_way_at_shutdown_is_served_and_a_silent_one_does_not_delay_it() {
    let (rig, backend) = Rig::routed().await;
    let mut silent = rig.connect().await;
    let mut client = rig.connect().await;
    until("both are pending", || rig.metrics.pending.get() == 2).await;
    rig.drain.stop_accepting();
    client.write_all(&startup()).await.unwrap();
    let leader = welcome(&backend).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    let text = error(&mut silent).await;
    assert!(text.contains("shutting down"), "{text}");
    drop((client, leader));
    let drain = rig.drain.clone();
    assert_eq!(within("draining", drain.finish(HANG)).await, 0, "ended by force");
}

/// Does one of the things that clients do in the storm, chosen at random, held or not.
async fn a_client_of_the_storm(address: std::net::SocketAddr, mut random: Random) {
    let Ok(mut client) = TcpStream::connect(address).await else {
        return;
    };
    let packet = startup();
    let all = packet.len() as u64;
    let sent = [0, random.below(all), all, all][random.below(4) as usize] as usize;
    let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];
    let first: &[u8] = match random.below(5) {
        0 => &cancel,
        1 => b"GET / HTTP/1.1\r\n",
        _ => &packet[..sent],
    };
    let _gone = client.write_all(first).await;
    match random.below(3) {
        0 => reset(client),
        1 => drop(client),
        _ => {
            let _end = within("pgnorth closes", read_all(&mut client)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_of_a_storm_has_exactly_one_ending() {
    let settings = Settings {
        startup: Duration::from_millis(300),
        max_sessions: 50,
        ..settings()
    };
    let rig = Rig::with_hold(Duration::from_millis(200), settings).await;
    let backend = Backend::start("pg-0").await;
    let leader = backend.leader.clone();
    // A leader that answers, breaks the connection, or has no connection free.
    let serving = tokio::spawn(async move {
        let mut random = Random(7);
        loop {
            let mut leader = backend.accept().await;
            let choice = random.below(4);
            tokio::spawn(async move {
                let answer: &[u8] = match choice {
                    0 => b"",
                    1 => b"E\0\0\0\x1aSFATAL\0C53300\0Mfull!!\0\0",
                    _ => WELCOME,
                };
                let _read = timeout(Duration::from_millis(100), leader.readable()).await;
                let _gone = leader.write_all(answer).await;
            });
        }
    });
    let mut random = Random(42);
    let mut clients = tokio::task::JoinSet::new();
    for wave in 0..6 {
        match wave % 3 {
            0 => drop(rig.slot.publish(RoutingState::Fence, "fenced".into())),
            1 => drop(
                rig.slot
                    .publish(RoutingState::Route(leader.clone()), "pg-0 leads".into()),
            ),
            _ => drop(
                rig.slot
                    .publish(RoutingState::Hold(Some(leader.clone())), "switchover".into()),
            ),
        }
        for _ in 0..150 {
            let seed = Random(random.next() | 1);
            clients.spawn(a_client_of_the_storm(rig.address, seed));
        }
        while let Some(done) = within("a client", clients.join_next()).await {
            done.unwrap();
            if clients.len() < 20 {
                break;
            }
        }
    }
    // The shutdown begins while some are still open.
    rig.drain.stop_accepting();
    let drain = rig.drain.clone();
    within("draining", drain.finish(Duration::from_millis(50))).await;
    while let Some(done) = within("a client", clients.join_next()).await {
        done.unwrap();
    }
    let endings: Vec<_> = Ending::ALL.map(|ending| (ending, rig.metrics.endings(ending))).into();
    let ended: u64 = endings.iter().map(|(_, count)| count).sum();
    assert_eq!(ended, rig.metrics.accepted.get(), "{endings:?}");
    assert!(ended >= 800, "{ended} of 900 were accepted");
    for state in [SessionState::Held, SessionState::Dialling, SessionState::Forwarding] {
        assert_eq!(rig.sessions(state), 0);
    }
    assert_eq!(rig.metrics.pending.get(), 0);
    serving.abort();
}
