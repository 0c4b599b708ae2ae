//! `pgnorth publish` on a fake API: the endpoint of the Service follows the target.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::fake_cluster::{FakeCluster, Product, eventually};
use super::fake_patroni::FakeMember;
use super::targets::pod;

const SERVICE: &str = "pg-primary";

/// Waits until the Service has this one endpoint.
async fn has_endpoint(cluster: &FakeCluster, endpoint: SocketAddr) {
    let mut last = Value::Null;
    let expected = json!([{
        "addresses": [{"ip": endpoint.ip().to_string()}],
        "ports": [{"name": "postgresql", "port": endpoint.port(), "protocol": "TCP"}],
    }]);
    eventually(&format!("the endpoint {endpoint}"), async || {
        let found = cluster.api.object("endpoints", SERVICE).unwrap_or_default()["subsets"].clone();
        if found != last {
            println!("endpoints: {found}");
            last = found.clone();
        }
        (found == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_leads_to_the_target_of_the_primary() {
    let cluster = FakeCluster::start(20).await;
    let pooler = |last: u8| SocketAddr::from(([127, 0, 0, last], 6432));
    let put = |member: &FakeMember, role: &str, last: u8| {
        cluster
            .api
            .put("pods", member.name, &pod(member, role, Some(pooler(last))));
    };
    put(&cluster.a, "primary", 11);
    put(&cluster.b, "replica", 12);
    cluster.api.put_service_without_selector(SERVICE);
    let at_port = |member: &FakeMember, port: u16| SocketAddr::from((member.postgres.ip(), port));
    for (target, endpoint) in [
        ("postgres", cluster.a.postgres),
        ("7000", at_port(&cluster.a, 7000)),
        ("proxy", pooler(11)),
    ] {
        let flags = ["--service", SERVICE, "--endpoints", "--target", target];
        let _publisher = Product::start_publisher(&cluster, &flags).await;
        has_endpoint(&cluster, endpoint).await;
    }
    let flags = ["--service", SERVICE, "--endpoints", "--target", "proxy"];
    let _publisher = Product::start_publisher(&cluster, &flags).await;
    has_endpoint(&cluster, pooler(11)).await;
    cluster.b.is_primary(2);
    put(&cluster.b, "primary", 12);
    cluster.lock_moves_to("b");
    has_endpoint(&cluster, pooler(12)).await;
    // The pooler moves, and its member stays the primary.
    put(&cluster.b, "primary", 13);
    has_endpoint(&cluster, pooler(13)).await;
}
