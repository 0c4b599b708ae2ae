//! One listener for IPv6 and IPv4.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use pgnorth::proxy::{Context, Proxy, RefusalTls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Backend, Rig, settings, within};

#[tokio::test(flavor = "multi_thread")]
async fn the_address_for_all_takes_clients_of_both_families() {
    let (rig, backend) = Rig::routed().await;
    let proxy = Proxy::bind(&["[::]:0".parse().unwrap()], &settings()).unwrap();
    let bound = proxy.local_addrs()[0];
    tokio::spawn(proxy.run(Arc::new(Context {
        slot: rig.slot.clone(),
        drain: rig.drain.clone(),
        metrics: rig.metrics.clone(),
        recorder: Arc::new(pgnorth::recorder::Recorder::new(Default::default())),
        wait_queue: Arc::default(),
        liveness: Default::default(),
        log_limiter: Default::default(),
        leader_failures: tokio::sync::mpsc::channel(1).0,
        refusal_tls: RefusalTls::new(None).unwrap(),
        settings: settings(),
    })));
    let mut targets = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port()))];
    // On a host without IPv6 the fallback has bound IPv4 only.
    if bound.is_ipv6() {
        targets.push(SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port())));
    }
    for target in targets {
        let mut client = within("a client connects", TcpStream::connect(target)).await.unwrap();
        // A client that says nothing is not dialled for.
        client.write_all(b"?").await.unwrap();
        backend.accept().await;
        drop(client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_an_ipv6_address_is_reached() {
    let rig = Rig::start().await;
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        // Not a pass in disguise: such a host cannot have such a leader.
        println!("this host has no IPv6");
        return;
    };
    let leader = super::support::leader("pg-0", "::1", listener.local_addr().unwrap().port());
    let backend = Backend { listener, leader };
    rig.route(&backend);
    rig.session(&backend).await;
}
