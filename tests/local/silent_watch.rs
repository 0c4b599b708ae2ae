//! A watch that stays open without events: pgnorth reads an overdue lock, and if the API does not answer that either,
//! the members' REST API decides.

use std::time::Duration;

use pgnorth::kubernetes::READ_TIMEOUT;

use crate::fake_cluster::{FakeCluster, Product, eventually};
use crate::fake_patroni::Answer;

const TTL: u32 = 4;

#[tokio::test]
async fn a_silent_watch_is_noticed_and_the_new_leader_followed() {
    let cluster = FakeCluster::start(TTL).await;
    let product = Product::start(&cluster, &[]).await;
    let session = product.session().await;
    assert_eq!(session.member, "a");

    cluster.api.mute_watches();
    let gets = cluster.api.gets();
    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");

    // The lock is fresh and moves while the watch delivers nothing. There must be no fence, which would come from the
    // clock alone.
    product.decides("route", Some("b"), "b holds the leader lock").await;
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
    assert!(cluster.api.gets() > gets, "the object was asked for");
    let log = product.log();
    assert!(!log.contains("fencing"), "no fence");
}

/// In pause a lock that nobody renews ends no session, so everything depends on noticing the end of the pause.
#[tokio::test]
async fn the_end_of_a_pause_is_noticed_although_every_watch_is_dead_and_the_leader_frozen() {
    let cluster = FakeCluster::start(TTL).await;
    cluster.pause(true);
    let product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;

    cluster.a.answers(Answer::Nothing);
    cluster.freeze();
    cluster.api.mute_watches();
    product.decides("route", Some("a"), "paused").await;
    session.lives().await;
    cluster.pause(false);

    // Well before a connection without bytes is closed for that reason alone.
    let soon = Duration::from_secs(u64::from(3 * TTL));
    let fenced = product.decides("fence", None, "has not renewed");
    tokio::time::timeout(soon, fenced)
        .await
        .expect("the end of the pause is noticed");
    session.ends().await;
}

#[tokio::test]
async fn an_api_that_hangs_costs_no_session_and_rest_names_the_next_leader() {
    let cluster = FakeCluster::start(TTL).await;
    let product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;

    cluster.api.hang();
    product
        .decides("route", Some("a"), "the Kubernetes API cannot be read")
        .await;
    // Longer than the ttl, in which no renewal can be observed.
    tokio::time::sleep(Duration::from_secs(u64::from(TTL) + 1)).await;
    product
        .decides("route", Some("a"), "the Kubernetes API cannot be read")
        .await;
    session.lives().await;
    product
        .tells("WARN", &["cannot read or watch", "in the Kubernetes API"])
        .await;
    let (_, metrics) = product.page("/metrics").await;
    let silent = metrics
        .lines()
        .any(|line| line.contains("source") && line.contains("kubernetes") && line.ends_with(" 0"));
    assert!(silent, "the source is down in\n{metrics}");

    cluster.a.is_replica(1);
    cluster.b.is_primary(2);
    session.ends().await;
    assert_eq!(product.session().await.member, "b");
    assert_eq!(cluster.a.visits(), 1);
}

/// The watch of a quiet object delivers nothing, not even bookmarks: the server must end it before the connection is
/// closed as dead, which would look like an API that does not answer.
#[tokio::test]
async fn a_quiet_api_is_not_reported_as_unreachable() {
    const WATCHES: usize = 7;
    let cluster = FakeCluster::start(TTL).await;
    let _product = Product::start(&cluster, &[]).await;
    let watches = eventually("everything is watched", async || {
        let watches = cluster.api.watches();
        (watches.len() >= WATCHES).then_some(watches)
    })
    .await;
    // kube waits for the end that much longer than the server was asked for.
    let longest = *watches.iter().max().unwrap() + 5;
    assert!(longest < READ_TIMEOUT.as_secs(), "{watches:?}");
    assert!(
        watches.iter().any(|seconds| *seconds != watches[0]),
        "all end together: {watches:?}"
    );
}
