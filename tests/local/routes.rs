//! Routes to several members: who gets a client, what happens if a dial fails, and whose sessions end. The proxy alone first, then the whole product.

use std::net::SocketAddr;

use pgnorth::ending::Ending;
use pgnorth::metrics::SessionState;
use pgnorth::slot::UsableMember;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fake_cluster::{FakeCluster, Product, Session, eventually};
use super::fake_patroni::{Answer, FakeMember};
use super::refusal::{error_after, startup};
use super::support::{Backend, Rig, read_exactly, read_to_end, within};

const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];

fn share(rig: &Rig, backends: &[&Backend], reason: &str) {
    let usable = |backend: &&Backend| UsableMember {
        server: backend.leader.clone(),
        open: true,
        rank: 0,
    };
    for cut in rig.slot.share(backends.iter().map(usable).collect(), reason.into()) {
        cut.end.now(Ending::MemberUnfit);
    }
}

async fn two_members() -> (Rig, Backend, Backend) {
    let rig = Rig::reading().await;
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    share(&rig, &[&a, &b], "both are fit");
    (rig, a, b)
}

/// A client that said something, and the socket that the member accepted for it.
async fn session(rig: &Rig, a: &Backend, b: &Backend) -> (TcpStream, TcpStream, bool) {
    let mut client = rig.connect().await;
    client.write_all(b"?").await.unwrap();
    let (mut server, is_a) = tokio::select! {
        server = a.accept() => (server, true),
        server = b.accept() => (server, false),
    };
    assert_eq!(read_exactly(&mut server, 1).await, b"?");
    server.write_all(b"!").await.unwrap();
    assert_eq!(read_exactly(&mut client, 1).await, b"!");
    (client, server, is_a)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_out_ends_its_own_sessions_and_no_other() {
    let (rig, a, b) = two_members().await;
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let (client, server, is_a) = session(&rig, &a, &b).await;
        if is_a { &mut to_a } else { &mut to_b }.push((client, server));
    }
    assert_eq!((to_a.len(), to_b.len()), (5, 5));
    share(&rig, &[&b], "a was promoted");
    for (client, _server) in &mut to_a {
        assert_eq!(read_to_end(client).await, b"");
    }
    for (client, server) in &mut to_b {
        client.write_all(b"still").await.unwrap();
        assert_eq!(read_exactly(server, 5).await, b"still");
    }
    assert_eq!(rig.metrics.endings(Ending::MemberUnfit), 5);
    assert_eq!(rig.sessions(SessionState::Forwarding), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_dial_fails_goes_to_the_next_member() {
    let (mut rig, a, b) = two_members().await;
    let Backend { listener, leader } = a;
    drop(listener);
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut client = rig.connect().await;
        client.write_all(b"?").await.unwrap();
        let mut server = b.accept().await;
        assert_eq!(read_exactly(&mut server, 1).await, b"?");
        open.push((client, server));
    }
    let failure = within("the failed dial is reported", rig.leader_failures.recv())
        .await
        .unwrap();
    assert_eq!(failure.member, leader.member);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_reaches_every_member_of_the_route() {
    let (rig, a, b) = two_members().await;
    let mut client = rig.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    for backend in [&a, &b] {
        let mut server = backend.accept().await;
        assert_eq!(read_exactly(&mut server, 16).await, CANCEL);
    }
    assert_eq!(read_to_end(&mut client).await, b"");
    rig.ends(Ending::CancelSent, 1).await;
}

/// Three members in Kubernetes, of which a leads, with two further routes.
async fn product(cluster: &FakeCluster) -> (Product, SocketAddr, SocketAddr) {
    let flags = [
        "--route",
        "127.0.0.1:0=replica",
        "--route",
        "127.0.0.1:0=read-only,hold=1s",
        "--hold",
        "60s",
    ];
    let product = Product::start(cluster, &flags).await;
    let routes = status(&product).await["routes"].clone();
    let address = |place: usize| routes[place]["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (&routes[1]["route"], &routes[2]["route"]),
        (&json!("replica"), &json!("read-only"))
    );
    (product, address(1), address(2))
}

async fn status(product: &Product) -> Value {
    serde_json::from_str(&product.page("/status").await.1).unwrap()
}

/// Waits until the route treats this member so.
async fn treats(product: &Product, route: usize, member: &str, treatment: &str) -> Value {
    eventually(&format!("{member} is {treatment}"), async || {
        let status = status(product).await;
        let members = status["routes"][route]["members"].as_array().unwrap().clone();
        members
            .into_iter()
            .find(|found| found["name"] == member && found["treatment"] == treatment)
    })
    .await
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_to_replicas_and_lose_a_promoted_one() {
    let cluster = FakeCluster::start(20).await;
    let c = FakeMember::start("c").await;
    cluster.api.put("pods", "c", &c.pod("replica"));
    let (product, replicas, reads) = product(&cluster).await;
    let found = treats(&product, 1, "c", "fit").await;
    assert_eq!(found["address"], c.postgres.to_string());
    treats(&product, 2, "a", "fit").await;
    let mut members = Vec::new();
    let mut to_replicas = Vec::new();
    for _ in 0..4 {
        let session = Session::of(connect(replicas).await).await;
        members.push(session.member.clone());
        to_replicas.push(session);
    }
    members.sort();
    assert_eq!(members, ["b", "b", "c", "c"]);
    assert_eq!(c.asked(), 0, "the watch says enough about a replica");
    let mut to_any = Vec::new();
    for _ in 0..3 {
        to_any.push(Session::of(connect(reads).await).await);
    }
    let mut members: Vec<_> = to_any.iter().map(|session| session.member.clone()).collect();
    members.sort();
    assert_eq!(members, ["a", "b", "c"], "the primary is one of them");
    // b is promoted; a follows it as a replica.
    cluster.lock_moves_to("b");
    treats(&product, 1, "b", "closed").await;
    cluster.a.answers(super::fake_patroni::report("a", 503, "replica", 1));
    cluster.api.put("pods", "a", &cluster.a.pod("replica"));
    cluster.b.is_primary(2);
    let b = treats(&product, 1, "b", "out").await;
    assert_eq!(b["reason"], "b is the primary");
    treats(&product, 1, "a", "fit").await;
    for mut session in to_replicas {
        match session.member.as_str() {
            "b" => session.ends().await,
            _ => session.lives().await,
        }
    }
    for session in to_any.iter_mut().filter(|session| session.member != "a") {
        session.lives().await;
    }
    let (_, metrics) = product.page("/metrics").await;
    let port = replicas.port();
    let fit =
        |member: &str| format!("pgnorth_route_member_fit{{route=\"replica\",port=\"{port}\",member=\"{member}\"}} ");
    assert!(
        metrics.contains(&(fit("b") + "0")) && metrics.contains(&(fit("c") + "1")),
        "{metrics}"
    );
    assert!(metrics.contains(&format!(
        "pgnorth_route_sessions{{route=\"replica\",port=\"{port}\",member=\"c\"}} 2"
    )));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fit_member_readers_wait_and_are_refused_with_the_reason() {
    let cluster = FakeCluster::start(20).await;
    let (product, replicas, reads) = product(&cluster).await;
    treats(&product, 1, "b", "fit").await;
    cluster.api.put("pods", "b", &crashed(&cluster.b));
    treats(&product, 1, "b", "out").await;
    let waiting = connect(replicas).await;
    let session = Session::of(connect(reads).await).await;
    assert_eq!(session.member, "a", "the route for reads still has the primary");
    cluster.api.put("pods", "b", &cluster.b.pod("replica"));
    assert_eq!(Session::of(waiting).await.member, "b");
    // Without the leader's lock no member is fit for reads.
    cluster.api.put("pods", "b", &crashed(&cluster.b));
    cluster.annotate("leader", "");
    cluster.a.answers(Answer::Reset);
    cluster.api.put("pods", "a", &crashed(&cluster.a));
    treats(&product, 2, "a", "out").await;
    let mut client = within("a client connects", TcpStream::connect(reads)).await.unwrap();
    let error = error_after(&mut client, &startup()).await;
    assert!(
        error.starts_with("57P03 neither a replica nor the primary could be reached within 1s: no member is fit"),
        "{error}"
    );
    assert!(error.contains("b is not running (state crashed)"), "{error}");
}

fn crashed(member: &FakeMember) -> Value {
    let mut status: Value = serde_json::from_str(member.pod("replica")["status"].as_str().unwrap()).unwrap();
    status["state"] = json!("crashed");
    json!({"status": status.to_string()})
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_find_replicas_without_kubernetes() {
    let (a, b) = (FakeMember::start("a").await, FakeMember::start("b").await);
    a.is_primary(1);
    a.lists(&[&a, &b]);
    let product = Product::start_by_rest(&[&a, &b], &["--route", "127.0.0.1:0=replica"]).await;
    treats(&product, 1, "b", "fit").await;
    let address = status(&product).await["routes"][1]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut session = Session::of(connect(address).await).await;
    assert_eq!(session.member, "b");
    b.answers(Answer::Nothing);
    treats(&product, 1, "b", "fit").await;
    session.lives().await;
}

/// The member's answer with this position in the WAL, in MB.
fn at_position(name: &str, status: u16, role: &str, field: &str, position: u64) -> Answer {
    let Answer::Json(status, mut body) = super::fake_patroni::report(name, status, role, 1) else {
        unreachable!("a report is JSON")
    };
    body["xlog"] = json!({field: position << 20});
    Answer::Json(status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_keeps_its_sessions_and_gets_no_more() {
    let cluster = FakeCluster::start(20).await;
    let leads_at = |position| at_position("a", 200, "primary", "location", position);
    let replays = |position| at_position("b", 503, "replica", "replayed_location", position);
    cluster.a.answers(leads_at(100));
    cluster.b.answers(replays(95));
    let flags = [
        "--route",
        "127.0.0.1:0=replica,max-lag=16MB",
        "--route",
        "127.0.0.1:0=replica,max-lag=16MB,lagging=cut",
    ];
    let product = Product::start(&cluster, &flags).await;
    let routes = status(&product).await["routes"].clone();
    let [patient, strict] = [1, 2].map(|place: usize| routes[place]["address"].as_str().unwrap().parse().unwrap());
    treats(&product, 1, "b", "fit").await;
    treats(&product, 2, "b", "fit").await;
    let mut stays = Session::of(connect(patient).await).await;
    let ends = Session::of(connect(strict).await).await;
    cluster.a.answers(leads_at(200));
    let b = treats(&product, 1, "b", "closed").await;
    assert_eq!(b["reason"], "b is more than 16MB behind the leader");
    treats(&product, 2, "b", "out").await;
    ends.ends().await;
    stays.lives().await;
    let waiting = connect(patient).await;
    cluster.b.answers(replays(199));
    assert_eq!(Session::of(waiting).await.member, "b");
}

/// Patroni's record of the synchronous standbys takes effect at once, and members are not asked. What they would say
/// repeats it up to a `loop_wait` later.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_synchronous_standby_end_when_the_dcs_names_another() {
    let cluster = FakeCluster::start(20).await;
    let c = FakeMember::start("c").await;
    cluster.api.put("pods", "c", &c.pod("replica"));
    let config = json!({"config": json!({"ttl": 20, "synchronous_mode": true}).to_string()});
    cluster.api.put("endpoints", "pg-config", &config);
    let names = |standby: &str| {
        let record = json!({"leader": "a", "sync_standby": standby});
        cluster.api.put("endpoints", "pg-sync", &record);
    };
    names("b");
    let flags = ["--route", "127.0.0.1:0=sync", "--route", "127.0.0.1:0=async"];
    let product = Product::start(&cluster, &flags).await;
    let routes = status(&product).await["routes"].clone();
    let [sync, not_sync] = [1, 2].map(|place: usize| routes[place]["address"].as_str().unwrap().parse().unwrap());
    treats(&product, 1, "b", "fit").await;
    treats(&product, 2, "c", "fit").await;
    let on_b = Session::of(connect(sync).await).await;
    let mut on_c = Session::of(connect(not_sync).await).await;
    assert_eq!((on_b.member.as_str(), on_c.member.as_str()), ("b", "c"));
    names("c");
    on_b.ends().await;
    on_c.lives().await;
    assert_eq!(Session::of(connect(sync).await).await.member, "c");
    // The routes are published one after the other.
    treats(&product, 2, "b", "fit").await;
    assert_eq!(Session::of(connect(not_sync).await).await.member, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_the_record_members_say_which_standby_is_synchronous() {
    let cluster = FakeCluster::start(20).await;
    cluster.api.forbid("configmaps");
    cluster.api.forbid("endpoints/pg-sync");
    let Answer::Json(status, mut body) = super::fake_patroni::report("b", 503, "replica", 1) else {
        unreachable!("a report is JSON")
    };
    body["sync_standby"] = json!(true);
    cluster.b.answers(Answer::Json(status, body));
    let product = Product::start(&cluster, &["--route", "127.0.0.1:0=sync"]).await;
    treats(&product, 1, "b", "fit").await;
    product
        .tells("INFO", &["endpoints default/pg-sync", "forbidden", "list"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_synchronous_standby_end_when_another_takes_its_place() {
    let cluster = FakeCluster::start(20).await;
    let c = FakeMember::start("c").await;
    cluster.api.put("pods", "c", &c.pod("replica"));
    let is_sync = |member: &FakeMember, sync: bool| {
        let Answer::Json(status, mut body) = super::fake_patroni::report(member.name, 503, "replica", 1) else {
            unreachable!("a report is JSON")
        };
        body["sync_standby"] = json!(sync);
        member.answers(Answer::Json(status, body));
    };
    is_sync(&cluster.b, true);
    is_sync(&c, false);
    let product = Product::start(&cluster, &["--route", "127.0.0.1:0=sync"]).await;
    let address = status(&product).await["routes"][1]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    treats(&product, 1, "b", "fit").await;
    let session = Session::of(connect(address).await).await;
    assert_eq!(session.member, "b");
    is_sync(&c, true);
    is_sync(&cluster.b, false);
    session.ends().await;
    assert_eq!(Session::of(connect(address).await).await.member, "c");
}
