//! Routes to the primary with targets of their own: one decision for PostgreSQL and for the pooler beside it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::fake_cluster::{FakeCluster, Product, Session, eventually};
use super::fake_patroni::FakeMember;
use super::support::within;

/// Members a and b with their poolers A and B.
struct Setup {
    cluster: FakeCluster,
    poolers: [FakeMember; 2],
    product: Product,
    /// Address of the route to the pooler.
    pooled: SocketAddr,
}

impl Setup {
    async fn start(ttl: u32, flags: &[&str]) -> Self {
        Self::of(FakeCluster::start(ttl).await, flags).await
    }

    async fn of(cluster: FakeCluster, flags: &[&str]) -> Self {
        let poolers = [FakeMember::start("A").await, FakeMember::start("B").await];
        cluster
            .api
            .put("pods", "a", &pod(&cluster.a, "primary", Some(poolers[0].postgres)));
        cluster
            .api
            .put("pods", "b", &pod(&cluster.b, "replica", Some(poolers[1].postgres)));
        let route = ["--route", "127.0.0.1:0=primary,target=proxy"];
        let product = Product::start(&cluster, &[&route, flags].concat()).await;
        product.decides("route", Some("a"), "").await;
        let pooled = route_of(&product, 1).await["address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        Self {
            cluster,
            poolers,
            product,
            pooled,
        }
    }

    /// Returns a session to PostgreSQL, and one to the pooler.
    async fn sessions(&self) -> [Session; 2] {
        [
            self.product.session().await,
            Session::of(connect(self.pooled).await).await,
        ]
    }

    async fn endings(&self, ending: &str, count: u32) {
        let line = format!("pgnorth_sessions_ended_total{{ending=\"{ending}\"}} {count}");
        self.metric(&line).await;
    }

    async fn metric(&self, line: &str) {
        eventually(line, async || {
            let (_, metrics) = self.product.page("/metrics").await;
            metrics.lines().any(|found| found == line).then_some(())
        })
        .await;
    }
}

/// Returns the annotations of the member's pod, with this `proxy_url`.
pub fn pod(member: &FakeMember, role: &str, pooler: Option<SocketAddr>) -> Value {
    let mut status: Value = serde_json::from_str(member.pod(role)["status"].as_str().unwrap()).unwrap();
    if let Some(pooler) = pooler {
        status["proxy_url"] = json!(format!("postgres://{pooler}/postgres"));
    }
    json!({"status": status.to_string()})
}

async fn route_of(product: &Product, place: usize) -> Value {
    let status: Value = serde_json::from_str(&product.page("/status").await.1).unwrap();
    status["routes"][place].clone()
}

/// Waits until the route is open, or not, for a reason with these words.
async fn is_open(product: &Product, place: usize, open: bool, words: &str) {
    eventually(&format!("route {place}: open is {open}: {words}"), async || {
        let route = route_of(product, place).await;
        let reason = route["reason"].as_str().unwrap();
        (route["open"] == open && reason.contains(words)).then_some(())
    })
    .await;
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_ends_the_sessions_at_every_target_and_holds_the_clients_of_both() {
    let setup = Setup::start(20, &["--route", "127.0.0.1:0=replica,target=proxy"]).await;
    let product = &setup.product;
    let [direct, pooled] = setup.sessions().await;
    assert_eq!((direct.member.as_str(), pooled.member.as_str()), ("a", "A"));
    let found = route_of(product, 1).await;
    assert_eq!(
        (&found["route"], &found["target"]),
        (&json!("primary"), &json!("proxy"))
    );
    assert_eq!(found["members"][0]["address"], setup.poolers[0].postgres.to_string());
    let readers = route_of(product, 2).await;
    assert_eq!(readers["target"], "proxy");
    let reading = Session::of(connect(readers["address"].as_str().unwrap().parse().unwrap()).await).await;
    assert_eq!(reading.member, "B");

    setup.cluster.lock_moves_to("b");
    direct.ends().await;
    pooled.ends().await;
    setup.endings("leader_changed", 2).await;
    let waiting = [product.client().await, connect(setup.pooled).await];
    setup.cluster.b.is_primary(2);
    let mut members = Vec::new();
    for client in waiting {
        members.push(Session::of(client).await.member);
    }
    assert_eq!(members, ["b", "B"]);
    reading.ends().await;
    let changed = "pgnorth_leader_changes_total 1";
    setup.metric(changed).await;
    let line = product
        .logs("the further listener", |event| event["fields"]["target"] == "proxy")
        .await;
    assert_eq!(
        line["fields"]["message"],
        "listening for clients of an additional route"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_of_the_primary_fences_every_target() {
    let setup = Setup::start(4, &[]).await;
    let [direct, pooled] = setup.sessions().await;
    setup.cluster.freeze();
    setup.product.decides("fence", None, "").await;
    direct.ends().await;
    pooled.ends().await;
    setup.endings("fenced", 2).await;
    is_open(&setup.product, 1, false, "renewed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_at_every_target_have_the_failover_drain_and_not_longer() {
    let setup = Setup::start(20, &["--failover-drain", "3s"]).await;
    let mut sessions = setup.sessions().await;
    setup.cluster.annotate("leader", "");
    is_open(&setup.product, 1, false, "the leader lock was released").await;
    setup.cluster.b.is_primary(2);
    setup.cluster.lock_moves_to("b");
    let [direct, pooled] = setup.sessions().await;
    assert_eq!((direct.member.as_str(), pooled.member.as_str()), ("b", "B"));
    for session in &mut sessions {
        session.lives().await;
    }
    for session in sessions {
        session.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_holds_and_cuts_at_every_target() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery-staple\n").unwrap();
    let option = format!("--admin-token-file={}", file.display());
    let setup = Setup::start(20, &[&option]).await;
    let command = async |path: &str| {
        let more = "Authorization: Bearer correct-horse-battery-staple\r\nContent-Length: 0\r\n";
        let (status, body) = setup.product.request("POST", path, more).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    let [mut direct, mut pooled] = setup.sessions().await;
    command("/hold?for=60s").await;
    is_open(&setup.product, 1, false, "operator").await;
    let waiting = connect(setup.pooled).await;
    direct.lives().await;
    pooled.lives().await;
    let cut: Value = serde_json::from_str(&command("/sessions/cut").await).unwrap();
    assert_eq!(cut["sessions"], 2, "{cut}");
    direct.ends().await;
    pooled.ends().await;
    command("/release").await;
    assert_eq!(Session::of(waiting).await.member, "A");
}

/// Without that, each client would try the pooler that is down first, because it has no sessions.
#[tokio::test(flavor = "multi_thread")]
async fn readers_avoid_a_pooler_that_could_not_be_reached() {
    let (cluster, c) = (FakeCluster::start(20).await, FakeMember::start("c").await);
    // Nothing listens at this address.
    let closed = SocketAddr::from(([127, 0, 0, 98], 6432));
    cluster.api.put("pods", "c", &pod(&c, "replica", Some(closed)));
    let setup = Setup::of(cluster, &["--route", "127.0.0.1:0=replica,target=proxy"]).await;
    let product = &setup.product;
    let readers = eventually("c is fit", async || {
        let route = route_of(product, 2).await;
        let members = route["members"].as_array().unwrap();
        let is_fit = members
            .iter()
            .any(|member| member["name"] == "c" && member["treatment"] == "fit");
        is_fit.then(|| route["address"].as_str().unwrap().parse().unwrap())
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..12 {
        open.push(Session::of(connect(readers).await).await);
    }
    assert!(open.iter().all(|session| session.member == "B"));
    let (_, metrics) = product.page("/metrics").await;
    let counted = "pgnorth_pooler_failures_total{route=\"replica\",target=\"proxy\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
    let failures: u32 = line.parse().unwrap();
    assert!((1..6).contains(&failures), "{failures} of 12 clients tried it");
    product
        .tells("WARN", &["the member's pooler could not be reached"])
        .await;
    product.decides("route", Some("a"), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_may_change_the_target_and_ends_no_session() {
    let mut setup = Setup::start(20, &[]).await;
    let [mut direct, mut pooled] = setup.sessions().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    let pid = setup.product.id().to_string();
    command.env_clear().args(["reload", "--pid", &pid, "--target", "proxy"]);
    let output = within("the reload", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    setup.product.is_replaced(1).await;
    let mut later = setup.sessions().await;
    assert_eq!(later.each_ref().map(|session| session.member.as_str()), ["A", "A"]);
    for session in [&mut direct, &mut pooled].into_iter().chain(&mut later) {
        session.lives().await;
    }
    // The old process has the session to PostgreSQL, and still follows the leader.
    setup.product.lives();
    setup.cluster.lock_moves_to("b");
    setup.cluster.b.is_primary(2);
    direct.ends().await;
    pooled.ends().await;
    assert_eq!(setup.product.ended().await, Some(0));
    assert_eq!(setup.product.session().await.member, "B");
}

/// The failure of a pooler concerns its own route, and a member without a pooler leads nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_fails_or_has_no_address_holds_the_clients_of_its_route_alone() {
    let setup = Setup::start(20, &[]).await;
    let (product, a) = (&setup.product, &setup.cluster.a);
    // Nothing listens at this address.
    let closed = SocketAddr::from(([127, 0, 0, 98], 6432));
    setup.cluster.api.put("pods", "a", &pod(a, "primary", Some(closed)));
    eventually("the address has changed", async || {
        let address = route_of(product, 1).await["members"][0]["address"].clone();
        (address == closed.to_string()).then_some(())
    })
    .await;
    let waiting = connect(setup.pooled).await;
    product
        .tells(
            "WARN",
            &[
                "the leader's pooler could not be reached",
                "this says nothing about PostgreSQL",
            ],
        )
        .await;
    product.decides("route", Some("a"), "").await;
    assert_eq!(product.session().await.member, "a");
    let (_, metrics) = product.page("/metrics").await;
    let counted = "pgnorth_pooler_failures_total{route=\"primary\",target=\"proxy\"} ";
    let line = metrics.lines().find(|line| line.starts_with(counted));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
    assert!(
        !metrics.contains("target=\"postgres\""),
        "PostgreSQL's failures are none of a pooler's"
    );
    setup
        .cluster
        .api
        .put("pods", "a", &pod(a, "primary", Some(setup.poolers[0].postgres)));
    let mut session = Session::of(waiting).await;
    assert_eq!(session.member, "A");

    // The former address is all that is known: it keeps its sessions.
    setup.cluster.api.put("pods", "a", &pod(a, "primary", None));
    assert_eq!(product.session().await.member, "a");
    session.lives().await;
    setup.cluster.b.is_primary(2);
    setup
        .cluster
        .api
        .put("pods", "b", &pod(&setup.cluster.b, "primary", None));
    setup.cluster.lock_moves_to("b");
    session.ends().await;
    is_open(
        product,
        1,
        false,
        "the leader's address for target=proxy is unknown: member b has published no proxy_url",
    )
    .await;
    product
        .logs("the missing address", |event| {
            let fields = &event["fields"];
            let text = |field: &str| fields[field].as_str().unwrap_or_default();
            text("message").contains("address for this route target is unknown")
                && text("cause").contains("member b has published no proxy_url")
        })
        .await;
    assert_eq!(product.session().await.member, "b");
    let waiting = connect(setup.pooled).await;
    let pooler = setup.poolers[1].postgres;
    setup
        .cluster
        .api
        .put("pods", "b", &pod(&setup.cluster.b, "primary", Some(pooler)));
    assert_eq!(Session::of(waiting).await.member, "B");
    product.tells("INFO", &["for this route target is known again"]).await;
}
