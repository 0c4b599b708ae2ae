//! The backlogs of listeners at shutdown.

use std::sync::mpsc as sync;

use tokio::sync::mpsc;

use super::*;
use crate::metrics::Metrics;
use crate::proxy::{Dependencies, Proxy, RefusalTls, Route, Settings};
use crate::recorder::Recorder;
use crate::route::{RouteKind, Upstream};
use crate::slot::RouteSlot;

const HANG: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        startup: HANG,
        connect_timeout: HANG,
        tcp_user_timeout: HANG,
        client_tcp_user_timeout: HANG,
        socket_buffers: 0,
        sources: Vec::new(),
        proxy_protocol: Vec::new(),
        max_sessions: 10,
        workers: 1,
    }
}

fn dependencies() -> Arc<Dependencies> {
    let metrics = Arc::new(Metrics::new());
    Arc::new(Dependencies {
        drain: Default::default(),
        metrics: metrics.clone(),
        recorder: Arc::new(Recorder::new(metrics)),
        wait_queue: Default::default(),
        log_limiter: Default::default(),
        liveness: Default::default(),
        leader_failures: mpsc::channel(1).0,
        refusal_tls: RefusalTls::new(None).unwrap(),
        settings: settings(),
    })
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANG, holds).await.unwrap();
}

#[tokio::test]
async fn only_a_listener_of_systemd_keeps_its_backlog_at_shutdown() {
    let dependencies = dependencies();
    let (drain, accepted) = (dependencies.drain.clone(), dependencies.metrics.accepted.clone());
    let route = Route {
        kind: RouteKind::Primary,
        slot: Arc::new(RouteSlot::new("no leader yet")),
        hold: HANG,
        upstream: Upstream::Postgres,
    };
    let mut proxy = Proxy::default();
    let any = "127.0.0.1:0".parse().unwrap();
    let bound = proxy
        .bind(any, route.clone(), &settings())
        .unwrap()
        .local_addr()
        .unwrap();
    let systemds = TcpListener::bind(any).unwrap();
    let copy = systemds.try_clone().unwrap();
    proxy.adopt(copy, true, route, &settings()).unwrap();
    let sessions = proxy.sessions();
    let accepting = Accepting::default();
    accepting.begin.cancel();
    let _running = tokio::spawn(proxy.run(dependencies, accepting));
    let both = [bound, systemds.local_addr().unwrap()];
    let connect = || both.map(|address| TcpStream::connect(address).unwrap());

    let _first = connect();
    until(|| accepted.get() == 2).await;
    // The worker is busy while both clients come and accepting stops.
    let ((busy, is_busy), (free, until_free)) = (sync::channel(), sync::channel::<()>());
    sessions.any().unwrap().workers.on(0, move |_| {
        busy.send(()).unwrap();
        let _dropped = until_free.recv();
    });
    is_busy.recv_timeout(HANG).unwrap();
    let second = connect().map(|client| client.local_addr().map(|address| (client, address)).unwrap());
    drain.stop_accepting();
    drop(free);
    drain.finish(Duration::ZERO).await;

    assert_eq!(
        accepted.get(),
        3,
        "the client of the bound listener is accepted, not reset"
    );
    let (_client, left) = systemds.accept().expect("the client waits for the next process");
    assert_eq!(left, second[1].1);
}
