//! The log's lines about faults that repeat, and about the client behind a row of pg_stat_activity.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::fake_cluster::{FakeCluster, Product, Session, eventually};
use super::support::within;

/// Returns the lines with these words in their message.
fn lines(product: &Product, words: &str) -> Vec<Value> {
    let all = product.events().into_iter();
    all.filter(|event| {
        event["fields"]["message"]
            .as_str()
            .is_some_and(|message| message.contains(words))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_s_lines_name_the_addresses_that_client_and_postgresql_see() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &["--log", "info,pgnorth::proxy=debug"]).await;
    let session = product.session().await;
    let [seen]: [SocketAddr; 1] = cluster.a.visitors().try_into().unwrap();
    let client = session.address();
    let both = |line: &Value| (line["fields"]["peer"].clone(), line["fields"]["leader_side"].clone());
    let expected = (json!(client.to_string()), json!(seen.to_string()));
    // While the session lives: an operator reads pg_stat_activity then.
    let begun = eventually("the session has begun", async || {
        lines(&product, "session begins").into_iter().next()
    })
    .await;
    assert_eq!((&both(&begun), &begun["level"]), (&expected, &json!("DEBUG")));
    drop(session);
    let ended = eventually("the session has ended", async || {
        lines(&product, "session ended").into_iter().next()
    })
    .await;
    assert_eq!(both(&ended), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_logged_with_the_target_that_documents_and_filters_name() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    let found = eventually("a leader was found", async || {
        lines(&product, "leader found").into_iter().next()
    })
    .await;
    assert_eq!(found["target"], "pgnorth::discovery", "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_info_sessions_leave_no_line() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    for _ in 0..3 {
        product.session().await.lives().await;
    }
    for line in product.events() {
        assert!(
            line["target"] != "pgnorth::proxy::record" && line["level"] != "DEBUG",
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_leader_is_one_line_and_so_are_the_clients_refused_for_it() {
    let cluster = FakeCluster::start(20).await;
    // A port that was free a moment ago: nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pod = cluster
        .a
        .pod_with_conn_url("primary", &format!("postgres://{closed}/postgres"));
    cluster.api.put("pods", "a", &pod);
    let product = Product::start(&cluster, &["--hold", "1s"]).await;
    product.decides("route", Some("a"), "").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(product.client().await);
    }
    for mut client in clients {
        let mut refusal = Vec::new();
        let _closed = within("the client is refused", client.read_to_end(&mut refusal)).await;
    }
    let [unreached] = &lines(&product, "the leader could not be reached")[..] else {
        panic!("one line: {}", product.log())
    };
    assert_eq!(unreached["level"], "WARN");
    assert_eq!(unreached["fields"]["leader"], format!("a at {closed}"));
    let refused = lines(&product, "refused a client");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let (_, metrics) = product.page("/metrics").await;
    assert!(metrics.contains("ending=\"hold_expired\"} 20"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_that_is_reached_again_and_again_is_one_line() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &["--max-sessions", "1"]).await;
    product.decides("route", Some("a"), "").await;
    for _ in 0..3 {
        let session = eventually("the place is free", async || {
            let mut client = product.client().await;
            let mut name = [0];
            let through = within("an answer or an end", client.read_exact(&mut name)).await;
            through.is_ok().then_some(client)
        })
        .await;
        let mut beyond = product.client().await;
        let mut refusal = Vec::new();
        let _closed = within("the second is refused", beyond.read_to_end(&mut refusal)).await;
        drop(session);
    }
    let (_, metrics) = product.page("/metrics").await;
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pgnorth_sessions_ended_total{ending=\"full\"} "));
    assert!(refused.unwrap().parse::<u32>().unwrap() >= 3, "{metrics}");
    let refusing = lines(&product, "refusing clients: the limit of sessions is reached");
    assert_eq!(refusing.len(), 1, "{}", product.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waited_is_let_through_without_a_line() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    cluster.annotate("leader", "");
    product.decides("hold", None, "released").await;
    let client = product.client().await;
    cluster.annotate("leader", "a");
    assert_eq!(Session::of(client).await.member, "a");
    assert!(lines(&product, "refused").is_empty() && lines(&product, "reached").is_empty());
}
