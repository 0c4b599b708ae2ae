//! The same faults again and again on one cluster, and random ones: who acknowledged each single row, and whether it is still there at the end.
//! What one fault does to sessions and clients is checked in `failovers.rs` and `hiccups.rs`.

mod faults;
mod trial;

use std::time::{Duration, SystemTime};

use crate::support::{Dcs, Member, Rig, Settings, wait_until};
use faults::FAULTS;
use trial::{Failures, Trial};

const TIMES: usize = 5;
/// With ttl 20, the next primary is writable about 21 s after its predecessor's end.
const FAILOVER: Duration = Duration::from_secs(60);
/// A member that was killed has to recover, rewind and stream again.
const WHOLE: Duration = Duration::from_secs(120);
/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn repeated_switchovers_with_endpoints() {
    switchovers(Dcs::Endpoints, Failures::None).await;
}

#[tokio::test]
async fn repeated_switchovers_with_config_maps() {
    switchovers(Dcs::ConfigMaps, Failures::None).await;
}

/// Nothing announces a switchover here, so that logins under way may be cut by PostgreSQL's shutdown.
#[tokio::test]
async fn repeated_switchovers_without_kubernetes() {
    switchovers(Dcs::Etcd, Failures::Told).await;
}

#[tokio::test]
async fn repeated_kills_of_the_primary_s_host_lose_no_acknowledged_row() {
    let rig = Rig::start_with(Dcs::Endpoints, synchronous()).await;
    let mut trial = Trial::start(&rig, "60s").await;
    for _ in 0..TIMES {
        wait_for_a_synchronous_standby(&rig).await;
        let old = rig.leader().await;
        inserts_arrive(old).await;
        old.kill_host();
        let new = rig.wait_for_new_leader(old, FAILOVER).await;
        trial.note(new).await;
        trial.reaches(new).await;
        old.start();
        rig.wait_until_whole(WHOLE).await;
    }
    trial.finish(TIMES + 1, Failures::Told).await;
}

/// PGNORTH_RANDOM_FAULTS says how many; PGNORTH_SEED repeats the choice of an earlier run.
#[tokio::test]
#[ignore = "takes half an hour: make test-random"]
async fn random_faults() {
    let count = number("PGNORTH_RANDOM_FAULTS").unwrap_or(50);
    let seed = number("PGNORTH_SEED").unwrap_or_else(now);
    eprintln!("{count} faults, PGNORTH_SEED={seed}");
    let settings = Settings {
        failsafe: true,
        ..synchronous()
    };
    let rig = Rig::start_with(Dcs::Endpoints, settings).await;
    let mut trial = Trial::start(&rig, "60s").await;
    let mut random = Random(seed);
    for index in 1..=count {
        wait_for_a_synchronous_standby(&rig).await;
        inserts_arrive(rig.leader().await).await;
        let fault = FAULTS[random.below(FAULTS.len())];
        eprintln!("{index}: {fault:?} of {}", rig.leader().await.name());
        fault.happen(&rig).await;
        rig.wait_until_whole(WHOLE).await;
        let leader = rig.leader().await;
        trial.note(leader).await;
        trial.reaches(leader).await;
    }
    trial.finish(1, Failures::Told).await;
}

async fn switchovers(dcs: Dcs, failures: Failures) {
    let rig = Rig::start(dcs).await;
    let mut trial = Trial::start(&rig, "40s").await;
    for _ in 0..TIMES {
        let old = rig.leader().await;
        inserts_arrive(old).await;
        rig.switchover(None).await;
        let new = rig.wait_for_new_leader(old, FAILOVER).await;
        trial.note(new).await;
        trial.reaches(new).await;
        rig.wait_until_whole(WHOLE).await;
    }
    trial.finish(TIMES + 1, failures).await;
}

fn synchronous() -> Settings {
    Settings {
        synchronous: true,
        ..Settings::default()
    }
}

/// Without one there is nobody whom Patroni may promote, and rows are acknowledged that only the primary has.
async fn wait_for_a_synchronous_standby(rig: &Rig) {
    wait_until("a replica is synchronous", WHOLE, async || {
        let cluster = rig.cluster().await?;
        let mut members = cluster["members"].as_array()?.iter();
        members.any(|member| member["role"] == "sync_standby").then_some(())
    })
    .await;
}

/// Waits for twenty rows more on the primary: a fault without traffic before and after it would show nothing.
async fn inserts_arrive(leader: &Member) {
    let count = async || leader.psql("select count(*) from load").await.ok()?.parse::<u64>().ok();
    let before = wait_until("the primary counts its rows", SOON, count).await;
    wait_until("rows arrive", SOON, async || {
        count().await.filter(|now| *now >= before + 20)
    })
    .await;
}

/// SplitMix64: random enough to choose faults, and the same everywhere for one seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound as u64).expect("below a usize")
    }
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    since.as_secs()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")),
    )
}
