//! `make test-routes`: every fault on every route, beside HAProxy with the same checks, by each source. It prints
//! tables, and asserts what pgnorth promises.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::contenders::{Contender, Contenders, ROUTES, TestedRoute};
use super::fairness;
use super::readers::{Crowd, Position, Readers, Seen};
use super::{FAILOVER, startup_process};
use crate::support::{Dcs, Member, Rig, Settings, wait_until};

/// One newcomer and three sessions on each route of each contender.
const CROWD: Crowd = Crowd {
    newcomers: 1,
    pause: Duration::from_millis(100),
    sessions: 3,
    lifetime: None,
};
/// Time for the slowest checks, the template's, to notice a change and its end.
const SETTLED: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Switchover,
    ReplicaCrash,
    PrimaryCrash,
    ReplayPaused,
    RestHangs,
    StandbyMoves,
    MemberJoins,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::Switchover,
        Self::ReplicaCrash,
        Self::PrimaryCrash,
        Self::ReplayPaused,
        Self::RestHangs,
        Self::StandbyMoves,
        Self::MemberJoins,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::ReplicaCrash => "crash of the asynchronous replica, back after 5 s",
            Self::PrimaryCrash => "crash of the primary",
            Self::ReplayPaused => "replay of a replica stopped for 10 s, 40 MB written",
            Self::RestHangs => "REST API of a replica hangs for 6 s",
            Self::StandbyMoves => "another standby becomes the synchronous one",
            Self::MemberJoins => "a new member joins",
        }
    }
}

#[tokio::test]
#[ignore = "some minutes: make test-routes"]
async fn every_fault_by_endpoints() {
    every_fault(Dcs::Endpoints, false).await;
}

#[tokio::test]
#[ignore = "some minutes: make test-routes"]
async fn every_fault_by_config_maps() {
    every_fault(Dcs::ConfigMaps, false).await;
}

#[tokio::test]
#[ignore = "some minutes: make test-routes"]
async fn every_fault_by_etcd() {
    every_fault(Dcs::Etcd, false).await;
}

#[tokio::test]
#[ignore = "some minutes: make test-routes"]
async fn every_fault_by_the_members_answers_alone() {
    every_fault(Dcs::Etcd, true).await;
}

async fn every_fault(dcs: Dcs, by_rest: bool) {
    let settings = Settings {
        synchronous: true,
        ..Settings::default()
    };
    let mut rig = Rig::start_with(dcs, settings.clone()).await;
    let contenders = Contenders::start(&rig, by_rest, 4).await;
    let position = Position::follow(&rig);
    let readers = contenders.addresses();
    let readers: Vec<_> = readers
        .map(|(contender, route, address)| (contender, route, Readers::start(address, &position, CROWD)))
        .collect();
    let source = if by_rest {
        "REST alone".to_owned()
    } else {
        format!("{dcs:?}")
    };
    let mut broken = Vec::new();
    println!(
        "\n{source}\n\n| fault | route | contender | new clients | failed | longest wait | sessions ended | late reads, new / open | answers by a primary |"
    );
    println!("|--|--|--|--|--|--|--|--|--|");
    for fault in Fault::ALL {
        settle(&rig).await;
        readers.iter().for_each(|(.., readers)| _ = readers.take());
        let changed = happen(&mut rig, fault, &settings).await;
        sleep(SETTLED).await;
        for (place, route) in ROUTES.iter().enumerate() {
            for (contender, _, readers) in readers.iter().filter(|(_, of, _)| *of == place) {
                let seen = readers.take();
                println!("{}", row(fault, route, *contender, &seen, changed));
                if *contender == Contender::Pgnorth && !seen.failed.is_empty() {
                    broken.push(format!("{}, {}: {:?}", fault.name(), route.name, seen.failed));
                }
            }
        }
    }
    drop(readers);
    fairness::chart(&rig, &contenders, &position, &source).await;
    println!("\nNew clients of pgnorth that failed: {broken:#?}");
    // A login that a crash interrupts fails, through any proxy. None is refused.
    let refused = broken.iter().any(|failed| failed.contains("could be reached"));
    assert!(!refused, "pgnorth refused new clients: {broken:#?}");
}

/// Returns a row of the table. `changed` is the time of Patroni's own change.
fn row(fault: Fault, route: &TestedRoute, contender: Contender, seen: &Seen, changed: Option<Instant>) -> String {
    let ended = match (seen.ends.iter().map(|(at, _)| *at).max(), changed) {
        (Some(last), Some(changed)) => {
            let after = last.saturating_duration_since(changed).as_secs_f64();
            format!("{}, after {after:.1} s", seen.ends.len())
        }
        _ => seen.ends.len().to_string(),
    };
    let answers = match route.has_primary {
        true => "allowed".to_owned(),
        false => seen.on_a_primary.to_string(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {:.1} s | {ended} | {} / {} | {} |",
        fault.name(),
        route.name,
        contender.name(),
        seen.connected,
        seen.failed.len(),
        seen.longest_wait.as_secs_f64(),
        seen.late_reads,
        seen.late_reads_in_sessions,
        answers,
    )
}

/// Waits until the cluster is whole, with one synchronous standby, and all checks have noticed.
async fn settle(rig: &Rig) {
    rig.wait_until_whole(2 * FAILOVER).await;
    wait_until("a synchronous standby", FAILOVER, async || {
        standby(rig, "sync_standby").await.map(|_| ())
    })
    .await;
    sleep(SETTLED).await;
}

/// Returns a member with this role in Patroni's view.
async fn standby<'a>(rig: &'a Rig, role: &str) -> Option<&'a Member> {
    let cluster = rig.cluster().await?;
    let row = cluster["members"]
        .as_array()?
        .iter()
        .find(|row| row["role"] == role)?
        .clone();
    rig.members().iter().find(|member| row["name"] == member.name())
}

pub async fn with_role<'a>(rig: &'a Rig, role: &str) -> &'a Member {
    wait_until(&format!("a member is {role}"), FAILOVER, async || {
        standby(rig, role).await
    })
    .await
}

/// Injects the fault and repairs it. Returns the time at which Patroni moved the synchronous standby, if that is the
/// fault.
async fn happen(rig: &mut Rig, fault: Fault, settings: &Settings) -> Option<Instant> {
    match fault {
        Fault::Switchover => rig.switchover(None).await,
        Fault::ReplicaCrash => {
            let replica = with_role(rig, "replica").await;
            replica.kill_host();
            sleep(Duration::from_secs(5)).await;
            replica.start();
            rig.wait_until_whole(2 * FAILOVER).await;
        }
        Fault::PrimaryCrash => {
            let leader = rig.leader().await;
            leader.kill_host();
            rig.wait_for_new_leader(leader, FAILOVER).await;
            sleep(Duration::from_secs(5)).await;
            leader.start();
            rig.wait_until_whole(2 * FAILOVER).await;
        }
        Fault::ReplayPaused => {
            let replica = with_role(rig, "replica").await;
            let startup = startup_process(replica);
            kill_process(startup, Signal::STOP).expect("stop the replay");
            super::write_40_mb(rig.leader().await).await;
            sleep(Duration::from_secs(10)).await;
            kill_process(startup, Signal::CONT).expect("continue the replay");
        }
        Fault::RestHangs => {
            let replica = with_role(rig, "replica").await;
            replica.freeze_patroni();
            sleep(Duration::from_secs(6)).await;
            replica.thaw_patroni();
        }
        Fault::StandbyMoves => return Some(move_standby(rig).await),
        Fault::MemberJoins => {
            rig.join(settings).await;
            rig.wait_until_whole(2 * FAILOVER).await;
        }
    }
    None
}

/// Gives the synchronous standby the tag `nosync`, and returns when Patroni has another one: at that time.
pub async fn move_standby(rig: &Rig) -> Instant {
    let former = with_role(rig, "sync_standby").await;
    former.set_tags(&json!({"nosync": true})).await;
    let changed = wait_until("another synchronous standby", FAILOVER, async || {
        let is_former = |cluster: &Value| {
            let rows = cluster["members"].as_array().cloned().unwrap_or_default();
            rows.iter()
                .any(|row| row["name"] == former.name() && row["role"] == "sync_standby")
        };
        (!is_former(&rig.cluster().await?)).then(Instant::now)
    })
    .await;
    with_role(rig, "sync_standby").await;
    former.set_tags(&json!({})).await;
    changed
}
