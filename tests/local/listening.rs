//! pgnorth in the process of a test, through the function that `main` calls; and one listener for IPv6 and IPv4.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use pgnorth::app::{Bound, Shutdown, ShutdownTrigger, serve};
use pgnorth::config::{Job, Settings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fake_cluster::Session;
use super::fake_patroni::FakeMember;
use super::support::{Backend, Rig, until, within};

/// Starts pgnorth in this process, as `main` does, in front of one member that leads.
async fn serve_in_process(listen: &str) -> (FakeMember, Bound, ShutdownTrigger) {
    let member = FakeMember::start("a").await;
    member.is_primary(1);
    member.lists(&[&member]);
    let patroni = format!("http://{}", member.rest);
    let flags = [
        "--listen",
        listen,
        "--admin",
        "127.0.0.1:0",
        "--lame-duck",
        "0s",
        "--patroni",
        &patroni,
    ];
    let arguments = ["pgnorth"].iter().chain(&flags).map(OsString::from);
    let Job::Proxy(settings) = Settings::read(arguments, |_| None).unwrap().job else {
        panic!("no subcommand is the proxy");
    };
    let (trigger, shutdown) = Shutdown::new();
    let bound = within("pgnorth listens", serve(&settings, Default::default(), shutdown));
    (member, bound.await.unwrap(), trigger)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wildcard_address_accepts_clients_of_ipv4_and_ipv6() {
    let (_member, bound, trigger) = serve_in_process("[::]:0").await;
    let mut targets = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, bound.routes[0].address.port()))];
    // On a host without IPv6 the fallback has bound IPv4 only.
    if bound.routes[0].address.is_ipv6() {
        targets.push(SocketAddr::from((Ipv6Addr::LOCALHOST, bound.routes[0].address.port())));
    }
    let running = tokio::spawn(bound.run());
    for target in targets {
        let mut client = within("a client connects", TcpStream::connect(target)).await.unwrap();
        // No leader is dialled for a client that sends nothing.
        client.write_all(b"?").await.unwrap();
        assert_eq!(Session::of(client).await.member, "a", "{target}");
    }
    trigger.request("the test");
    within("the shutdown ends", running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_pgnorth_drains_when_its_shutdown_is_triggered() {
    let (_member, bound, trigger) = serve_in_process("127.0.0.1:0").await;
    let address = bound.routes[0].address;
    let running = tokio::spawn(bound.run());
    let mut client = within("a client connects", TcpStream::connect(address)).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let mut session = Session::of(client).await;
    trigger.request("the test");
    until("it accepts no longer", || std::net::TcpListener::bind(address).is_ok()).await;
    session.lives().await;
    drop(session);
    within("the shutdown ends", running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_an_ipv6_address_is_reached() {
    let rig = Rig::start().await;
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        // The test may pass without IPv6: such a host cannot have such a leader.
        println!("this host has no IPv6");
        return;
    };
    let leader = super::support::leader("pg-0", "::1", listener.local_addr().unwrap().port());
    let backend = Backend { listener, leader };
    rig.route(&backend);
    rig.session(&backend).await;
}
