//! Troubles that are no failover, or must not become one for clients: healthy sessions live, new clients get in, and a split brain is cut in time.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::load::{Attempt, Load, Outcome};
use crate::support::{Dcs, Product, Rig, Settings, session, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(15);
/// With ttl 20, the next primary is writable about 26 s after its predecessor's Patroni froze.
const FAILOVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn patroni_hangs_for_eight_seconds_and_nobody_notices() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let (product, idle, load) = at_work(&rig).await;
    let leader = rig.leader().await;
    leader.freeze_patroni();
    tokio::time::sleep(Duration::from_secs(8)).await;
    leader.thaw_patroni();
    // The lock is renewed again before its ttl; a whole loop_wait later all is as before.
    tokio::time::sleep(Duration::from_secs(5)).await;
    no_harm_done(&product, &idle, load).await;
}

#[tokio::test]
async fn the_api_is_down_for_a_minute_in_failsafe_mode_and_nobody_notices() {
    let settings = Settings {
        failsafe: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Endpoints, settings).await;
    let (product, idle, load) = at_work(&rig).await;
    rig.kubernetes().api_stop();
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.kubernetes().api_start().await;
    // Long enough for a lease that was not renewed during the outage to run out, had it gone on counting.
    tokio::time::sleep(Duration::from_secs(25)).await;
    no_harm_done(&product, &idle, load).await;
}

#[tokio::test]
async fn a_frozen_patroni_is_fenced_before_another_member_is_promoted() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let (product, idle, load) = at_work(&rig).await;
    let old = rig.leader().await;
    old.freeze_patroni();
    let fenced = async {
        wait_until("the session to the frozen leader ends", FAILOVER, async || {
            idle.is_closed().then_some(())
        })
        .await;
        Instant::now()
    };
    let promoted = async {
        let new = rig.wait_for_new_leader(old, FAILOVER).await;
        (new, Instant::now())
    };
    let (fenced, (new, promoted)) = tokio::join!(fenced, promoted);
    assert!(
        fenced < promoted,
        "sessions ended {:?} after the promotion",
        fenced - promoted
    );
    // The old primary is writable all the while: only pgnorth keeps clients from it.
    assert_eq!(old.psql("select pg_is_in_recovery()").await.as_deref(), Ok("f"));
    assert_eq!(product.wait_until_writable(SOON).await, new.ip().to_string());
    let attempts = load.finish().await;
    let old = old.ip().to_string();
    let stray = acknowledged(&attempts)
        .filter(|(at, server)| *at > promoted && *server == old)
        .count();
    assert_eq!(
        stray, 0,
        "rows acknowledged by the old primary after the new one was writable"
    );
    // Who was in the middle of logging in is cut like any session; everybody else was served, or waited.
    let cut = |at: Instant| at <= fenced && fenced - at < Duration::from_secs(1);
    let others = attempts.iter().filter(|attempt| !cut(attempt.ended));
    assert_eq!(failures(others), Vec::<String>::new());
}

/// pgnorth in front, an idle session, and clients that insert.
async fn at_work(rig: &Rig) -> (Product, Client, Load) {
    let product = Product::start(rig, &["--hold", "40s"], &[]).await;
    product.wait_until_writable(SOON).await;
    let idle = session(product.address()).await.expect("a session that stays");
    let load = Load::start(product.address(), 3).await;
    (product, idle, load)
}

async fn no_harm_done(product: &Product, idle: &Client, load: Load) {
    assert!(!idle.is_closed(), "the idle session was ended");
    idle.simple_query("select 1").await.expect("the idle session works");
    let attempts = load.finish().await;
    assert!(acknowledged(&attempts).count() > 20, "hardly anything was inserted");
    assert_eq!(failures(&attempts), Vec::<String>::new());
    for ending in ["leader_changed", "fenced", "hold_expired"] {
        let ended = product
            .metric("pgnorth_sessions_ended_total", &[("ending", ending)])
            .await;
        assert_eq!(ended, Some(0.0), "{ending}");
    }
}

fn acknowledged(attempts: &[Attempt]) -> impl Iterator<Item = (Instant, &str)> {
    attempts.iter().filter_map(|attempt| match &attempt.outcome {
        Outcome::Acknowledged { server } => Some((attempt.ended, server.as_str())),
        _ => None,
    })
}

/// Attempts that failed before a row was under way, or on a read-only server. (A session that a fence cuts in mid-statement is neither.)
fn failures<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Vec<String> {
    let failures = attempts.into_iter().filter_map(|attempt| match &attempt.outcome {
        Outcome::NotConnected(error) => Some(format!("not connected: {error}")),
        Outcome::ReadOnly(error) => Some(format!("read-only: {error}")),
        Outcome::Acknowledged { .. } | Outcome::Broken(_) => None,
    });
    failures.collect()
}
