//! A REST API that does not answer as Patroni does is no evidence: current sessions stay while the lock is renewed, and
//! a new leader is not verified by it.

use tokio::task::LocalSet;

use crate::fake_cluster::{FakeCluster, Product, Session, eventually};
use crate::fake_patroni::{Answer, report};

/// Makes the false answer of the member with this name.
type FalseAnswer = fn(&str) -> Answer;

async fn proves_nothing(answer: FalseAnswer) {
    let cluster = FakeCluster::start(4).await;
    let product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;
    assert_eq!(session.member, "a");

    cluster.a.answers(answer("a"));
    product
        .decides(
            "route",
            Some("a"),
            "a holds the leader lock, which has not expired; its REST API gives no valid answer",
        )
        .await;
    session.lives().await;
    let mut another = product.session().await;
    assert_eq!(another.member, "a");
    let asked = cluster.a.asked();
    eventually("it is asked again", async || {
        (cluster.a.asked() >= asked + 2).then_some(())
    })
    .await;
    session.lives().await;
    another.lives().await;

    cluster.b.answers(answer("b"));
    cluster.lock_moves_to("b");
    session.ends().await;
    another.ends().await;
    let waiting = product.client().await;
    let asked = cluster.b.asked();
    eventually("b is asked again and again", async || {
        (cluster.b.asked() >= asked + 2).then_some(())
    })
    .await;
    let leader = product.leader().await;
    assert_eq!((&leader["state"], &leader["member"]), (&"hold".into(), &().into()));
    assert_eq!((cluster.a.visits(), cluster.b.visits()), (2, 0));

    cluster.b.is_primary(2);
    assert_eq!(Session::of(waiting).await.member, "b");
}

#[tokio::test]
async fn an_invalid_answer_proves_nothing() {
    let kinds: [(&str, FalseAnswer); 6] = [
        ("accepted, and no answer", |_| Answer::Nothing),
        ("half a body", |name| Answer::HalfBody(primary(name))),
        ("2 MB", |name| Answer::Body(primary(name) + &" ".repeat(2 << 20))),
        ("a page of HTML", |_| Answer::Body("<html>It works!</html>".into())),
        ("another member's answer", |_| report("c", 200, "primary", 2)),
        ("a reset", |_| Answer::Reset),
    ];
    // All at once, because each mostly waits for the next request.
    let together = LocalSet::new();
    let cases = kinds.map(|(kind, answer)| (kind, together.spawn_local(proves_nothing(answer))));
    together
        .run_until(async {
            for (kind, case) in cases {
                assert!(case.await.is_ok(), "{kind}");
            }
        })
        .await;
}

/// Returns the body of a member that leads and accepts writes.
fn primary(name: &str) -> String {
    match report(name, 200, "primary", 2) {
        Answer::Json(_, body) => body.to_string(),
        other => panic!("no JSON: {other:?}"),
    }
}
