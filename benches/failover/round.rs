//! One round of one fault: clients start, the fault happens, and everything is observed until it has settled.

use std::time::{Duration, Instant, SystemTime};

use crate::clients::{Clients, Outcome, Seen};
use crate::connector::Connector;
use crate::contenders::{Contender, Contenders};
use crate::faults::{Fault, Times};
use crate::figures::View;
use crate::session::insert;
use crate::support::rig::SCOPE;
use crate::support::{Rig, wait_until};
use crate::tls::Tls;
use crate::truth::{Sight, Truth};

/// Deadline for all contenders to route to the primary.
const READY: Duration = Duration::from_secs(60);
/// Time from the last client's start to the fault, plus up to one second by chance, so that rounds differ in the phase
/// of the timers.
const STEADY: Duration = Duration::from_secs(2);
/// With ttl 20, the next primary is writable at most 26 s after its predecessor's end; with Patroni's defaults, 44 s.
const FAILOVER: Duration = Duration::from_secs(90);
/// Time after which an event counts as missing: HAProxy's last sessions to a disconnected host end some 15 s after the
/// fault.
const SETTLE: Duration = Duration::from_secs(20);
/// Time of observation after the last client has reached the new primary: a late relapse would be visible.
const CALM: Duration = Duration::from_secs(3);

/// The result, for each contender in the order of `Contenders::all`.
pub struct Round {
    pub views: Vec<View>,
    /// From the fault to the moment at which a direct client could write to the new primary.
    pub writable_after: Option<Duration>,
}

/// Runs one round and makes the cluster whole again.
pub async fn run(rig: &Rig, contenders: &Contenders, fault: Fault, times: &Times) -> Round {
    let truth = Truth::watch(rig).await;
    let clients = start_clients(rig, contenders, fault, &truth).await;
    fault.prepare(rig, times).await;
    let primary = rig.leader().await;
    let old_primary = truth.newest_primary().expect("the primary is written to");
    eprintln!("  the fault comes at {}", jiff::Timestamp::now());
    let fault_at = Instant::now();
    let lock_expiry = async {
        match fault {
            Fault::PatroniFrozen => lock_expiry(rig).await,
            _ => None,
        }
    };
    let (lock_expiry, (), ()) = tokio::join!(
        lock_expiry,
        fault.strike(rig, primary, times),
        settled(fault, &truth, &clients, old_primary.timeline)
    );
    let mut seen = Vec::new();
    for clients in clients {
        seen.push(clients.finish().await);
    }
    let by_clients = seen.iter().flat_map(Seen::acknowledged);
    let by_clients = by_clients.map(|(by, at)| Sight { by: by.clone(), at });
    let on_new = by_clients.filter(|sight| sight.by.timeline > old_primary.timeline);
    let new_primary = on_new
        .chain(truth.first_after(old_primary.timeline))
        .min_by_key(|sight| sight.at);
    drop(truth);
    let view = |seen| View {
        seen,
        fault_at,
        old_primary: old_primary.clone(),
        new_primary: new_primary.clone(),
        lock_expiry,
    };
    let round = Round {
        views: seen.into_iter().map(view).collect(),
        writable_after: new_primary.as_ref().map(|sight| sight.at - fault_at),
    };
    tell(&round, contenders.all(), fault_at);
    fault.heal(rig, primary).await;
    round
}

/// Starts the clients, and waits until all of them work on the primary, for each contender.
async fn start_clients(rig: &Rig, contenders: &Contenders, fault: Fault, truth: &Truth) -> Vec<Clients> {
    let newest = wait_until("a direct client writes", READY, async || truth.newest_primary()).await;
    for contender in contenders.all() {
        let what = format!("{} leads only to the primary", contender.name());
        wait_until(&what, READY, async || {
            let connector = contenders.connector(rig, *contender, None);
            leads_to_the_primary_alone(connector).await.then_some(())
        })
        .await;
    }
    let tls = fault.with_tls().then(|| Tls::trusting(rig.authority()));
    let (now, count) = (
        Instant::now(),
        u32::try_from(contenders.all().len()).expect("they are few"),
    );
    let start = |contender: &Contender| {
        let name = format!("{} {now:?}", contender.key());
        Clients::start(&name, || contenders.connector(rig, *contender, tls.as_ref()), count)
    };
    let clients: Vec<_> = contenders.all().iter().map(start).collect();
    wait_until("every client is at work", READY, async || {
        let at_work = |clients: &Clients| clients.are_all_beyond(newest.timeline - 1) && clients.are_all_idle();
        clients.iter().all(at_work).then_some(())
    })
    .await;
    let chance = Duration::from_nanos(u64::from(
        SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos(),
    ));
    tokio::time::sleep(STEADY + chance).await;
    clients.iter().for_each(Clients::forget);
    clients
}

/// Returns true if a contender routes to the primary only: HAProxy distributes connections among all servers that it
/// takes for a primary, at first all of them.
async fn leads_to_the_primary_alone(mut connector: Connector) -> bool {
    for number in 0..5 {
        let Ok(mut session) = connector.open().await else {
            return false;
        };
        let id = format!("{number} {:?}", Instant::now());
        if session.insert(&insert(&id)).await.is_err() {
            return false;
        }
        connector.close(session).await;
    }
    true
}

/// Waits until every client has reached the new primary and every idle session to the former one is closed, or until
/// the deadline.
async fn settled(fault: Fault, truth: &Truth, clients: &[Clients], old_timeline: u32) {
    if !fault.moves_the_primary() {
        return;
    }
    wait_until("another member is writable", FAILOVER, async || {
        truth.first_after(old_timeline)
    })
    .await;
    let has_settled =
        |clients: &Clients| clients.are_all_beyond(old_timeline) && clients.seen().idle.iter().all(Option::is_some);
    let writable = Instant::now();
    while writable.elapsed() < SETTLE && !clients.iter().all(has_settled) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(CALM).await;
}

/// Returns the time at which the lock of the last renewal expires. The API, Patroni and this process have the same
/// clock.
async fn lock_expiry(rig: &Rig) -> Option<Instant> {
    let object = rig.kubernetes().object(&format!("endpoints/{SCOPE}")).await?;
    let annotations = &object["metadata"]["annotations"];
    let renewed: jiff::Timestamp = annotations["renewTime"].as_str()?.parse().ok()?;
    let ttl = Duration::from_secs(annotations["ttl"].as_str()?.parse().ok()?);
    let age = SystemTime::now().duration_since(SystemTime::from(renewed)).ok()?;
    Some(Instant::now() + ttl - age)
}

/// Prints each failure with its time on standard error.
fn tell(round: &Round, contenders: &[Contender], fault_at: Instant) {
    eprintln!("  writable after {:?}", round.writable_after);
    for (contender, view) in contenders.iter().zip(&round.views) {
        let mut shown = 0;
        for attempt in &view.seen.attempts {
            let what = match &attempt.outcome {
                Outcome::Acknowledged(_) | Outcome::Unfinished => continue,
                Outcome::NotConnected(why) => format!("not connected: {why}"),
                Outcome::Broken(why) => format!("broken: {why}"),
                Outcome::ReadOnly => "read-only".to_owned(),
            };
            shown += 1;
            if shown <= 20 {
                let after = |at: Instant| at.saturating_duration_since(fault_at).as_secs_f64();
                eprintln!(
                    "  {}: {:?} {} from {:.3} to {:.3} s after the fault: {what}",
                    contender.name(),
                    attempt.kind,
                    attempt.client,
                    after(attempt.started),
                    after(attempt.ended),
                );
            }
        }
        if shown > 20 {
            eprintln!("  {}: and {} more", contender.name(), shown - 20);
        }
    }
}
